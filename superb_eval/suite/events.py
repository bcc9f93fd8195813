"""What a scheduler reports while it executes runs, and what a scheduler is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from superb_eval.suite.jobs import Job

FEATURES_STEP = "features"
"""The step of a run (`superb_eval.runs.evaluate.load_features`) after which others can read the features it stored."""


@dataclass(frozen=True)
class Started:
    """A run starts."""

    job: Job


@dataclass(frozen=True)
class JobProgress:
    """Units done of a run's current step; `total` is 0 where it is unknown."""

    job: Job
    step: str
    done: int
    total: int
    postfix: str = ""

    @property
    def features_stored(self) -> bool:
        """Whether this is the end of the step after which other runs can read the features."""
        return self.step == FEATURES_STEP and self.done == self.total


@dataclass(frozen=True)
class Finished:
    """A run is finished: `run` is its folder under the results folder, `figures` its strict metrics as text."""

    job: Job
    run: str
    figures: str
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A run failed.

    `fixable`: `message` states what the user can do; otherwise something broke, and `log` is the path of the run's log,
    or of its process's where that died or the run had none yet.
    `died`: its process or machine was lost, or memory ran out that it shared, so another attempt is worthwhile.
    """

    job: Job
    message: str
    fixable: bool
    log: str = ""
    died: bool = False


@dataclass(frozen=True)
class Busy:
    """Another suite on this results folder executes the run: `holder` names its process."""

    job: Job
    holder: str


@dataclass(frozen=True)
class Retried:
    """A run's process died; the run is executed again after `seconds` at the earliest."""

    job: Job
    message: str
    seconds: float


@dataclass(frozen=True)
class OutOfMemory:
    """A run ran out of memory beside others: it waits, and continues from its checkpoint once they have finished."""

    job: Job
    message: str


Event = Started | JobProgress | Finished | Failed | Busy | Retried | OutOfMemory
EventHandler = Callable[[Event], None]


class Scheduler(Protocol):
    """Where runs are executed: on this machine's cores (`superb_eval.suite.executors.local`), by Ray or by SLURM.

    Each of them executes a run by `superb_eval.suite.execute`, under a lease of `superb_eval.suite.job_state`.
    """

    def run(self, jobs: Sequence[Job], on_event: EventHandler) -> None:
        """Execute every job, in about this order, and report events; return once each is finished, failed or busy.

        A run that fails doesn't stop the others. `on_event` may be called from any thread, one call at a time.
        """


@dataclass
class SuiteOutcome:
    """The runs of a suite that were finished before, that it finished, and that failed."""

    done_before: list[Job] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
