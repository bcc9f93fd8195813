"""The status of a results folder's suite, for any terminal: it reads the states of the runs, and nothing else."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from superb_eval.errors import UserError
from superb_eval.runtime import screen
from superb_eval.runtime.pace import duration
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import SUITE_FOLDER, Job
from superb_eval.suite.leases import Lease, LeaseWatcher
from superb_eval.suite.state_files import Failure, Receipt

if TYPE_CHECKING:
    from rich.console import RenderableType

POLL_SECONDS = 1.0
"""Seconds between two updates."""

WAITING = "waits for memory"

STYLES = {"done": "green", "failed": "red", "running": "bold", WAITING: "cyan", "planned": "dim", "dead": "yellow"}
"""The states of a run, in the order in which they are counted, and how each is printed."""


@dataclass(frozen=True)
class RunStatus:
    """The status of one run: its name, its state (a key of `STYLES`), details, and the end of a failure's log."""

    run: str
    state: str
    detail: str
    tail: str = ""


@dataclass
class StatusView:
    """The status of all runs that were ever planned in a results folder; rich can draw it."""

    out: Path
    watcher: LeaseWatcher = field(default_factory=LeaseWatcher)

    def __post_init__(self) -> None:
        if not (self.out / SUITE_FOLDER).is_dir():
            raise UserError(
                f"{self.out}: no suite was ever started there. `superb-eval suite --out {self.out}` starts one."
            )

    def read(self) -> list[RunStatus]:
        """Return the status of each run, by name."""
        states = JobStates(self.out)
        return [self._status(states, job) for job in states.planned()]

    def _status(self, states: JobStates, job: Job) -> RunStatus:
        lease = states.lease(job)
        if lease is not None:
            return _running(job, lease, self.watcher.is_alive(lease))
        failure, receipt = states.failure(job), states.receipt(job)
        if receipt is not None:
            return _done(job, receipt)
        if failure is not None:
            return _failed(job, failure)
        return RunStatus(str(job), WAITING if states.waits_for_memory(job) else "planned", "")

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("run", "state", ""):
            table.add_column(heading, no_wrap=heading != "")
        statuses = self.read()
        for status in statuses:
            table.add_row(escape(status.run), Text(status.state, style=STYLES[status.state]), escape(status.detail))
        return Group(table, Text(summary(statuses)))


def summary(statuses: list[RunStatus]) -> str:
    """Return the number of runs in each state, in one line."""
    counts = Counter(status.state for status in statuses)
    return f"{len(statuses)} runs: " + ", ".join(f"{counts[state]} {state}" for state in STYLES if counts[state])


def show(out: Path, follow: bool) -> None:
    """Print the status; with `follow`, on a terminal, update it as long as a run is planned, waits or runs.

    Raises:
        UserError: no suite was ever started there.
    """
    from rich.live import Live

    view, console = StatusView(out), screen.console(highlight=False)
    if not follow or not console.is_terminal:
        console.print(view)
        for status in view.read():
            if status.tail:
                console.print(f"\n{status.run}: the end of its log\n{status.tail}", markup=False, soft_wrap=True)
        return
    with Live(view, console=console, refresh_per_second=1 / POLL_SECONDS):
        while any(status.state in ("planned", WAITING, "running") for status in view.read()):
            time.sleep(POLL_SECONDS)


def _running(job: Job, lease: Lease, alive: bool) -> RunStatus:
    share = f" {lease.done}/{lease.total}" if lease.total else ""
    step = f"{lease.step or 'starting'}{share} {lease.postfix}".strip()
    detail = f"{step}; for {duration(lease.seconds)}, by {lease}"
    return RunStatus(str(job), "running" if alive else "dead", detail if alive else f"{detail}, which is gone")


def _done(job: Job, receipt: Receipt) -> RunStatus:
    return RunStatus(str(job), "done", f"{receipt.figures} ({duration(receipt.seconds)})")


def _failed(job: Job, failure: Failure) -> RunStatus:
    return RunStatus(str(job), "failed", f"{failure.message} ({failure.host})", failure.tail)
