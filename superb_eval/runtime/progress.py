"""Progress of a run: bars in a terminal, lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

LOG_EVERY = 10.0
"""Seconds between lines where there is no terminal to draw a bar in."""


class Update(Protocol):
    """Shows how many units of a step are done."""

    def __call__(self, done: int, postfix: str = "", total: int | None = None) -> None:
        """Show the units done, a text behind the bar, and the total number of units where it was not known before."""


class Progress(Protocol):
    """Shows the progress of a run."""

    def log(self, text: str) -> None:
        """Show one line."""

    def step(self, name: str, total: int) -> AbstractContextManager[Update]:
        """Show the progress of a step of `total` units while its context lasts."""


class NoProgress:
    """Shows nothing: the default from Python."""

    def log(self, text: str) -> None:
        """Show nothing."""

    @contextmanager
    def step(self, name: str, total: int) -> Iterator[Update]:
        """Show nothing."""
        del name, total
        yield lambda done, postfix="", total=None: None


class TerminalProgress:
    """Bars with rich in a terminal (standard error) and in a notebook; a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    def log(self, text: str) -> None:
        """Print one line; what looks like markup in it is printed as it stands."""
        self.console.print(text, markup=False)

    @contextmanager
    def step(self, name: str, total: int) -> Iterator[Update]:
        """Draw a bar with the time left, or print a line every ten seconds."""
        if self.console.is_terminal or self.console.is_jupyter:
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
            TextColumn("{task.fields[postfix]}", markup=False),
        )
        with Bar(*columns, console=self.console) as bar:
            task = bar.add_task(name, total=total, postfix="")
            yield lambda done, postfix="", total=None: bar.update(task, completed=done, postfix=postfix, total=total)


def for_python(shown: bool | None) -> Progress:
    """Return what shows the progress of a call from Python: bars if `shown`, by default in a notebook alone."""
    bars = TerminalProgress()
    return bars if shown or (shown is None and bars.console.is_jupyter) else NoProgress()


def _lines(name: str, total: int) -> Update:
    """Return an update that prints a line every `LOG_EVERY` seconds."""
    started = last = time.monotonic()
    first: int | None = None

    def update(done: int, postfix: str = "", total: int | None = total) -> None:
        nonlocal last, first
        total = total or 0
        now = time.monotonic()
        first = done - 1 if first is None else first  # not 0 where a killed run is resumed
        if done < total and now - last < LOG_EVERY:
            return
        last = now
        left = (now - started) / max(done - first, 1) * (total - done)
        print(f"{name}: {done}/{total}, {left:.0f} s left  {postfix}".rstrip(), file=sys.stderr, flush=True)

    return update
