"""The board of a running suite: what runs, how far it is, what is through, and about how long the rest takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from superb_eval.suite.events import Busy, Event, Failed, Finished, JobProgress, Retried, Started, SuiteOutcome
from superb_eval.suite.jobs import Job
from superb_eval.suite.plan import duration

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass
class Running:
    """A cell that runs: since when, and how far."""

    since: float
    progress: JobProgress | None = None


@dataclass
class ProgressView:
    """What is known of a suite that runs. It takes events, and draws itself on a terminal."""

    total: int
    workers: int
    outcome: SuiteOutcome
    running: dict[Job, Running] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)

    def tell(self, event: Event) -> None:
        """Take an event in."""
        if isinstance(event, Started):
            self.running[event.job] = Running(time.monotonic())
        elif isinstance(event, JobProgress):
            self.running.setdefault(event.job, Running(time.monotonic())).progress = event
        elif isinstance(event, Busy | Retried):
            self.running.pop(event.job, None)
        else:
            began = self.running.pop(event.job, Running(time.monotonic())).since
            self.took.append(time.monotonic() - began)
            (self.outcome.finished if isinstance(event, Finished) else self.outcome.failed).append(event)  # type: ignore[arg-type]

    def left(self) -> float | None:
        """Return about how many seconds are left; None before the first cell is through."""
        if not self.took:
            return None
        return sum(self.took) / len(self.took) * (self.total - len(self.took)) / self.workers

    def summary(self) -> str:
        """Return how far the suite is, in a line."""
        left = self.left()
        failed = f", {len(self.outcome.failed)} failed" if self.outcome.failed else ""
        about = "" if left is None else f", about {duration(left)} left"
        return f"{len(self.took)} of {self.total} cells through{failed}{about}"

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("cell", "stage", "", "for"):
            table.add_column(heading, no_wrap=True)
        for job, running in list(self.running.items()):
            p = running.progress
            share = f"{p.done}/{p.total}" if p and p.total else ""
            beside = f"{share} {p.beside}" if p else ""
            since = duration(time.monotonic() - running.since)
            table.add_row(escape(str(job)), escape(p.stage if p else "starting"), escape(beside.strip()), since)
        return Group(table, Text(self.summary()))


@contextmanager
def shown(board: ProgressView) -> Iterator[Any]:
    """Show a board while the context lasts: drawn on a terminal, else a line for each cell; yield what takes events."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda event: _by_line(board, event)
        return
    with Live(board, console=console, refresh_per_second=4):

        def tell(event: Event) -> None:
            board.tell(event)
            for line in _lines(event):
                console.print(line, markup=False)

        yield tell


def _by_line(board: ProgressView, event: Event) -> None:
    board.tell(event)
    for line in _lines(event):
        print(f"{line}  ({board.summary()})", file=sys.stderr, flush=True)


def _lines(event: Event) -> Iterator[str]:
    if isinstance(event, Finished):
        yield f"{event.job}: {event.figures} ({duration(event.seconds)})"
    elif isinstance(event, Failed):
        yield f"{event.job}: FAILED: {event.sentence}"
    elif isinstance(event, Busy):
        yield f"{event.job}: {event.by} runs it already; its result is waited for"
    elif isinstance(event, Retried):
        yield f"{event.job}: {event.sentence}; run again in {event.seconds:.0f} s"
