"""Shows the progress of a running suite: its current runs, their steps, how many are finished, and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from superb_eval.suite.events import (
    Busy,
    Event,
    EventHandler,
    Failed,
    Finished,
    JobProgress,
    OutOfMemory,
    Retried,
    Started,
    SuiteOutcome,
)
from superb_eval.suite.jobs import Job
from superb_eval.suite.plan_text import duration

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass
class Running:
    """A current run: its start by the monotonic clock, and its last progress."""

    since: float
    progress: JobProgress | None = None


@dataclass
class ProgressView:
    """The progress of a suite of `total` runs, `workers` at a time. It handles events, and rich can draw it."""

    total: int
    workers: int
    outcome: SuiteOutcome
    running: dict[Job, Running] = field(default_factory=dict)
    waiting: set[Job] = field(default_factory=set)
    """Runs that wait for memory."""
    durations: list[float] = field(default_factory=list)

    def handle(self, event: Event) -> None:
        """Update the view by an event."""
        if isinstance(event, Started):
            self.running[event.job] = Running(time.monotonic())
            self.waiting.discard(event.job)
        elif isinstance(event, OutOfMemory):
            self.running.pop(event.job, None)
            self.waiting.add(event.job)
        elif isinstance(event, JobProgress):
            self.running.setdefault(event.job, Running(time.monotonic())).progress = event
        elif isinstance(event, Busy | Retried):
            self.running.pop(event.job, None)
        else:
            since = self.running.pop(event.job, Running(time.monotonic())).since
            self.durations.append(time.monotonic() - since)
            if isinstance(event, Finished):
                self.outcome.finished.append(event)
            else:
                self.outcome.failed.append(event)

    def seconds_left(self) -> float | None:
        """Return an estimate of the seconds left; None before the first run is over."""
        if not self.durations:
            return None
        mean = sum(self.durations) / len(self.durations)
        return mean * (self.total - len(self.durations)) / self.workers

    def summary(self) -> str:
        """Return the suite's progress in one line."""
        left = self.seconds_left()
        failed = f", {len(self.outcome.failed)} failed" if self.outcome.failed else ""
        about = "" if left is None else f", about {duration(left)} left"
        return f"{len(self.durations)} of {self.total} runs done{failed}{about}"

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("run", "step", "", "time"):
            table.add_column(heading, no_wrap=True)
        for job, running in list(self.running.items()):
            p = running.progress
            share = f"{p.done}/{p.total}" if p and p.total else ""
            detail = f"{share} {p.postfix}" if p else ""
            since = duration(time.monotonic() - running.since)
            table.add_row(escape(str(job)), escape(p.step if p else "starting"), escape(detail.strip()), since)
        for job in sorted(self.waiting.copy(), key=str):  # another thread handles events
            table.add_row(escape(str(job)), "waits for memory", "", "")
        return Group(table, Text(self.summary()))


@contextmanager
def show(view: ProgressView) -> Iterator[EventHandler]:
    """Show a view while the context lasts: drawn on a terminal, else a line for each run; yield its event handler."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda event: _print_lines(view, event)
        return
    with Live(view, console=console, refresh_per_second=4):

        def handle(event: Event) -> None:
            view.handle(event)
            for line in _lines(event):
                console.print(line, markup=False)

        yield handle


def _print_lines(view: ProgressView, event: Event) -> None:
    view.handle(event)
    for line in _lines(event):
        print(f"{line}  ({view.summary()})", file=sys.stderr, flush=True)


def _lines(event: Event) -> Iterator[str]:
    if isinstance(event, Finished):
        yield f"{event.job}: {event.figures} ({duration(event.seconds)})"
    elif isinstance(event, Failed):
        yield f"{event.job}: FAILED: {event.message}"
    elif isinstance(event, Busy):
        yield f"{event.job}: {event.holder} executes it already; waiting for its result"
    elif isinstance(event, Retried):
        yield f"{event.job}: {event.message}; retried in {event.seconds:.0f} s"
    elif isinstance(event, OutOfMemory):
        yield f"{event.job}: {event.message}; waits for memory, and continues when others have finished"
