"""Progress of a run: bars in a terminal, lines in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from superb_eval.runtime import screen
from superb_eval.runtime.pace import Pace, time_left

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

    def step(self, name: str, total: int, done: int = 0) -> AbstractContextManager[Update]:
        """Show the progress of a step of `total` units, of which `done` were done before, while its context lasts."""


class NoProgress:
    """Shows nothing: the default from Python."""

    def log(self, text: str) -> None:
        """Show nothing."""

    @contextmanager
    def step(self, name: str, total: int, done: int = 0) -> Iterator[Update]:
        """Show nothing."""
        del name, total, done
        yield lambda done, postfix="", total=None: None


class TerminalProgress:
    """Bars with rich in a terminal (standard error) and in a notebook; a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self.console = screen.console(stderr=True, highlight=False)

    def log(self, text: str) -> None:
        """Print one line, however long, as it stands: paths stay whole in a log file, and nothing in it is markup."""
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def step(self, name: str, total: int, done: int = 0) -> Iterator[Update]:
        """Draw a bar with the time left, or print a line every ten seconds."""
        if self.console.is_terminal or self.console.is_jupyter:
            with self._bar(name, total, done) as update:
                yield update
        else:
            yield _lines(name, total)

    @contextmanager
    def _bar(self, name: str, total: int, done: int) -> Iterator[Update]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description:<18}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[postfix]}", markup=False),
        )
        with Bar(*columns, console=self.console) as bar:
            task = bar.add_task(name, total=total, completed=done, left="", postfix="")

            def draw(done: int, total: int, left: str, postfix: str) -> None:
                bar.update(task, completed=done, total=total, left=left, postfix=postfix)

            yield _with_time_left(total, draw)


def for_python(shown: bool | None) -> Progress:
    """Return what shows the progress of a call from Python: bars if `shown`, by default in a notebook alone."""
    bars = TerminalProgress()
    return bars if shown or (shown is None and bars.console.is_jupyter) else NoProgress()


def _with_time_left(total: int, show: Callable[[int, int, str, str], None]) -> Update:
    """Return an update of a step of `total` units that calls `show` with (done, total, the time left, postfix)."""
    pace, units = Pace(time.monotonic()), total

    def update(done: int, postfix: str = "", total: int | None = None) -> None:
        nonlocal units
        units, now = total or units, time.monotonic()
        pace.update(done, now)
        show(done, units, time_left(pace.seconds_left(units, now)) if done < units else "", postfix)

    return update


def _lines(name: str, total: int) -> Update:
    """Return an update that prints a line every `LOG_EVERY` seconds, and the last one."""
    last = time.monotonic()

    def print_line(done: int, total: int, left: str, postfix: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last >= LOG_EVERY:
            last = now
            screen.show("  ".join(filter(None, (f"{name}: {done}/{total}", left, postfix))), error=True, flush=True)

    return _with_time_left(total, print_line)
