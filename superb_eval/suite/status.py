"""A board of a results folder that any terminal can attach to: it reads the ledger, and nothing else."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from superb_eval.errors import UserError
from superb_eval.suite.job_state import Failure, JobStates, Receipt
from superb_eval.suite.jobs import PLACE, Job
from superb_eval.suite.leases import Lease, LeaseWatcher
from superb_eval.suite.plan import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY = 1.0
"""Seconds between two looks."""

FAINT = {"done": "green", "failed": "red", "running": "bold", "planned": "dim", "dead": "yellow"}


@dataclass(frozen=True)
class StatusLine:
    """What is known of one cell: its state (planned, running, dead, done or failed), and the rest in words."""

    cell: str
    state: str
    detail: str
    tail: str = ""


@dataclass
class StatusView:
    """The state of all cells that were ever planned in a results folder."""

    out: Path
    watcher: LeaseWatcher = field(default_factory=LeaseWatcher)

    def __post_init__(self) -> None:
        if not (self.out / PLACE).is_dir():
            raise UserError(
                f"{self.out}: no suite was ever begun there. `superb-eval suite --out {self.out}` begins one."
            )

    def lines(self) -> list[StatusLine]:
        """Return a line for each cell, by name."""
        ledger = JobStates(self.out)
        return [self._line(ledger, job) for job in ledger.planned()]

    def _line(self, ledger: JobStates, job: Job) -> StatusLine:
        claim = ledger.claimed(job)
        if claim is not None:
            return _running(job, claim, self.watcher.lives(claim))
        failure, receipt = ledger.failure(job), ledger.receipt(job)
        if receipt is not None:
            return _done(job, receipt)
        return StatusLine(str(job), "planned", "") if failure is None else _failed(job, failure)

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("cell", "state", ""):
            table.add_column(heading, no_wrap=heading != "")
        found = self.lines()
        for line in found:
            table.add_row(escape(line.cell), Text(line.state, style=FAINT[line.state]), escape(line.detail))
        return Group(table, Text(summary(found)))


def summary(lines: list[StatusLine]) -> str:
    """Return how many cells there are of each state, in a line."""
    counts = Counter(line.state for line in lines)
    return f"{len(lines)} cells: " + ", ".join(f"{counts[state]} {state}" for state in FAINT if counts[state])


def show(out: Path, follow: bool) -> None:
    """Print the board, and draw it anew every second as long as anything runs or is planned, where it is followed.

    Raises:
        UserError: no suite was ever begun there.
    """
    from rich.console import Console
    from rich.live import Live

    view, console = StatusView(out), Console(highlight=False)
    if not follow or not console.is_terminal:
        console.print(view)
        for line in view.lines():
            if line.tail:
                console.print(f"\n{line.cell}: the end of its log\n{line.tail}", markup=False)
        return
    with Live(view, console=console, refresh_per_second=1 / EVERY):
        while any(line.state in ("planned", "running") for line in view.lines()):
            time.sleep(EVERY)


def _running(job: Job, claim: Lease, lives: bool) -> StatusLine:
    share = f" {claim.done}/{claim.total}" if claim.total else ""
    what = f"{claim.stage or 'starting'}{share} {claim.beside}".strip()
    detail = f"{what}; for {duration(claim.seconds)}, by {claim}"
    return StatusLine(str(job), "running" if lives else "dead", detail if lives else f"{detail}, which is gone")


def _done(job: Job, receipt: Receipt) -> StatusLine:
    return StatusLine(str(job), "done", f"{receipt.figures} ({duration(receipt.seconds)})")


def _failed(job: Job, failure: Failure) -> StatusLine:
    return StatusLine(str(job), "failed", f"{failure.sentence} ({failure.host})", failure.tail)
