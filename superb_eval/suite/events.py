"""What a scheduler tells while it runs cells, and what a scheduler is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from superb_eval.suite.jobs import Job


@dataclass(frozen=True)
class Started:
    """A cell begins."""

    job: Job


@dataclass(frozen=True)
class JobProgress:
    """A cell has come some way in one of its stages; `total` is 0 where it isn't known."""

    job: Job
    stage: str
    done: int
    total: int
    beside: str = ""


@dataclass(frozen=True)
class Finished:
    """A cell is through: `run` is its folder under the results folder, `figures` what it came to, in words."""

    job: Job
    run: str
    figures: str
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A cell could not be run. `mendable`: `sentence` says what its user can do; else something broke, and `log` says
    where. `died`: its process did, or its machine, through no fault that was seen: it is worth another try."""

    job: Job
    sentence: str
    mendable: bool
    log: str = ""
    died: bool = False


@dataclass(frozen=True)
class Busy:
    """A cell is run by somebody else, who also uses this results folder."""

    job: Job
    by: str


@dataclass(frozen=True)
class Retried:
    """A cell's process died, and it will be run once more, in `seconds` at the earliest."""

    job: Job
    sentence: str
    seconds: float


Event = Started | JobProgress | Finished | Failed | Busy | Retried
Tell = Callable[[Event], None]


class Scheduler(Protocol):
    """Where cells run: this machine's cores (`superb_eval.suite.executors.local`), Ray's or SLURM's.

    Each of them runs a cell by `superb_eval.suite.execute`, under the ledger.
    """

    def run(self, jobs: Sequence[Job], tell: Tell) -> None:
        """Run every job, in about this order, and tell how it goes; return once each is finished, failed or busy.

        One that fails doesn't stop the others. `tell` may be called from any thread, one call at a time.
        """


@dataclass
class SuiteOutcome:
    """What became of the cells of a suite."""

    kept: list[Job] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
