"""Runs what is missing of a suite: makes the embedded corpus first, then the cells, and tries again what died."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from superb_eval.corpora import embedded
from superb_eval.errors import UserError
from superb_eval.runtime.progress import Progress
from superb_eval.suite import jobs
from superb_eval.suite.events import Busy, Event, Failed, Finished, Retried, Scheduler, SuiteOutcome, Tell
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import Job
from superb_eval.suite.leases import LeaseWatcher
from superb_eval.suite.plan import Plan

Shown = Callable[[SuiteOutcome, int], AbstractContextManager[Tell]]
"""Makes a board for an outcome that grows to so many cells."""

BACKOFF = 5.0
"""Seconds before cells that died are tried again; twice as many each time."""

LOOK_EVERY = 1.0
"""Seconds between two looks at cells that somebody else runs."""


def run(plan: Plan, scheduler: Scheduler, shown: Shown, progress: Progress, retries: int = 2) -> SuiteOutcome:
    """Run a plan's missing cells; one that fails stands in the outcome and stops no other.

    Cells whose process or machine died are run again, at most `retries` times. Cells that another suite runs are waited
    for, and taken over where it dies.
    """
    outcome = SuiteOutcome(kept=list(plan.kept))
    ready = [job for job in plan.missing if _ready(job, outcome, progress)]
    jobs.forget()
    ledger = JobStates(plan.request.out)
    with shown(outcome, len(ready)) as tell:
        ledger.plan(ready)
        for attempt in range(retries + 1):
            wait = BACKOFF * 2**attempt if attempt < retries else None
            ready = _rounds(ready, scheduler, ledger, tell, wait)
            if not ready:
                break
            time.sleep(wait or 0.0)
    return outcome


def _rounds(ready: list[Job], scheduler: Scheduler, ledger: JobStates, tell: Tell, wait: float | None) -> list[Job]:
    """Run cells until none is left that somebody else runs; return those that died, and are run again after `wait`.

    Without `wait`, they have failed.
    """
    died: list[Job] = []
    while ready:
        busy: list[Job] = []

        def told(event: Event, busy: list[Job] = busy) -> None:
            if isinstance(event, Busy):
                busy.append(event.job)
            elif isinstance(event, Failed) and event.died and wait is not None:
                died.append(event.job)
                event = Retried(event.job, event.sentence, wait)
            _keep(event, ledger)
            tell(event)

        scheduler.run(ready, told)
        ready = _free(busy, ledger, tell)
    return died


def _keep(event: Event, ledger: JobStates) -> None:
    """Note in the ledger what a process that died could not."""
    if isinstance(event, Failed) and event.died:
        log = Path(event.log)
        text = log.read_text(encoding="utf8", errors="replace") if event.log and log.is_file() else ""
        ledger.fail(event.job, event.sentence, event.mendable, text)


def _free(busy: list[Job], ledger: JobStates, tell: Tell) -> list[Job]:
    """Wait until a cell that somebody else runs is no longer run; return those, and tell of those that are done."""
    watcher = LeaseWatcher()
    free: list[Job] = []
    while busy and not free:
        time.sleep(LOOK_EVERY)
        jobs.forget()
        for job in list(busy):
            claim = ledger.claimed(job)
            if claim is not None and watcher.lives(claim):
                continue
            busy.remove(job)
            receipt = ledger.receipt(job)
            if receipt is not None and jobs.finished(job):
                tell(Finished(job, receipt.run, receipt.figures, receipt.seconds))
            else:
                free.append(job)
    return free + busy


def _ready(job: Job, outcome: SuiteOutcome, progress: Progress) -> bool:
    """Make the embedded corpus of a job, if it needs it: here, before workers would make it at once."""
    if job.data is not None:
        return True
    try:
        embedded.folder(job.profile, job.part(), progress)
    except UserError as error:
        outcome.failed.append(Failed(job, str(error), mendable=True))
        return False
    return True
