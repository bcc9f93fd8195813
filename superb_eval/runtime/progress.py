"""What a person sees while something runs: bars in a terminal, lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Update(Protocol):
    """Shows how far a stage has come."""

    def __call__(self, done: int, beside: str = "", total: int | None = None) -> None:
        """Show units done, a text beside the bar, and the number of units in all where it was not known before."""


LOG_EVERY = 10.0
"""Seconds between lines where there is no terminal to draw a bar in."""


class Progress(Protocol):
    """Shows how a run goes."""

    def say(self, text: str) -> None:
        """Show one line."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Update]:
        """Show the progress of a stage of `total` units while its context lasts."""


class NoProgress:
    """Shows nothing: the default from Python."""

    def say(self, text: str) -> None:
        """Show nothing."""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Update]:
        """Show nothing."""
        del name, total
        yield lambda done, beside="", total=None: None


class TerminalProgress:
    """Bars with rich where standard error is a terminal; a line now and then where it is not."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """Print one line; what looks like markup in it is printed as it stands."""
        self.console.print(text, markup=False)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Update]:
        """Draw a bar with the time left, or print a line every ten seconds."""
        if self.console.is_terminal:
            with self._bar(name, total) as update:
                yield update
        else:
            yield _lines(name, total)

    @contextmanager
    def _bar(self, name: str, total: int) -> Iterator[Update]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description:<18}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[beside]}", markup=False),
        )
        with Bar(*columns, console=self.console) as progress:
            task = progress.add_task(name, total=total, beside="")
            yield lambda done, beside="", total=None: progress.update(task, completed=done, beside=beside, total=total)


def _lines(name: str, total: int) -> Update:
    started = last = time.monotonic()
    begun: int | None = None

    def update(done: int, beside: str = "", total: int | None = total) -> None:
        nonlocal last, begun
        total = total or 0
        now = time.monotonic()
        begun = done - 1 if begun is None else begun  # not 0 where a killed run is taken up
        if done < total and now - last < LOG_EVERY:
            return
        last = now
        left = (now - started) / max(done - begun, 1) * (total - done)
        print(f"{name}: {done}/{total}, {left:.0f} s left  {beside}".rstrip(), file=sys.stderr, flush=True)

    return update
