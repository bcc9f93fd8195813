"""Shows the progress of a running suite: its current runs, their steps, how many are finished, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from superb_eval.runtime import screen
from superb_eval.runtime.pace import duration, time_left
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
from superb_eval.suite.schedule import RunEstimate
from superb_eval.suite.time_left import TimeLeft

if TYPE_CHECKING:
    from rich.console import RenderableType

    from superb_eval.suite.plan import Plan
    from superb_eval.suite.run import OpenView


@dataclass
class Running:
    """A current run: its start by the monotonic clock, and its last progress."""

    since: float
    progress: JobProgress | None = None


@dataclass
class ProgressView:
    """The progress of a suite of `total` runs. It handles events, and rich can draw it."""

    total: int
    outcome: SuiteOutcome
    time_left: TimeLeft
    now: Callable[[], float] = time.monotonic
    running: dict[Job, Running] = field(default_factory=dict)
    waiting: set[Job] = field(default_factory=set)
    """Runs that wait for memory."""
    over: int = 0
    """Runs that finished or failed."""

    def handle(self, event: Event) -> None:
        """Update the view by an event."""
        self.time_left.handle(event)
        if isinstance(event, Started):
            self.running[event.job] = Running(self.now())
            self.waiting.discard(event.job)
        elif isinstance(event, OutOfMemory):
            self.running.pop(event.job, None)
            self.waiting.add(event.job)
        elif isinstance(event, JobProgress):
            self.running.setdefault(event.job, Running(self.now())).progress = event
        elif isinstance(event, Busy | Retried):
            self.running.pop(event.job, None)
        else:
            self.running.pop(event.job, None)
            self.over += 1
            if isinstance(event, Finished):
                self.outcome.finished.append(event)
            else:
                self.outcome.failed.append(event)

    def summary(self) -> str:
        """Return the suite's progress in one line."""
        failed = f"{len(self.outcome.failed)} failed" if self.outcome.failed else ""
        left = time_left(self.time_left.seconds()) if self.over < self.total else ""
        return ", ".join(filter(None, (f"{self.over} of {self.total} runs done", failed, left)))

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
            since = duration(self.now() - running.since)
            table.add_row(escape(str(job)), escape(p.step if p else "starting"), escape(detail.strip()), since)
        for job in sorted(self.waiting.copy(), key=str):  # another thread handles events
            table.add_row(escape(str(job)), "waits for memory", "", "")
        return Group(table, Text(self.summary()))


def of_plan(plan: Plan, workers: int) -> OpenView:
    """Return what opens a view of a plan's runs, `workers` at a time."""

    def open_view(outcome: SuiteOutcome, total: int) -> AbstractContextManager[EventHandler]:
        failed = {each.job for each in outcome.failed}  # before they could start
        estimated = plan.runs or [RunEstimate(job) for job in plan.missing]  # nothing was timed for another machine
        runs = [run for run in estimated if run.job not in failed]
        return shown(ProgressView(total, outcome, TimeLeft(runs, workers, plan.memory)))

    return open_view


@contextmanager
def shown(view: ProgressView) -> Iterator[EventHandler]:
    """Show a view while the context lasts: drawn on a terminal, else a line for each run; yield its event handler."""
    from rich.live import Live

    console = screen.console(stderr=True, highlight=False)
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
        screen.show(f"{line}  ({view.summary()})", error=True, flush=True)


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
