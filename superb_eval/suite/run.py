"""Executes the missing runs of a plan: makes the embedded corpus first, and retries runs whose process died."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from superb_eval.corpora import embedded
from superb_eval.errors import UserError
from superb_eval.runtime.progress import Progress
from superb_eval.suite import inputs, jobs
from superb_eval.suite.events import (
    Busy,
    Event,
    EventHandler,
    Failed,
    Finished,
    OutOfMemory,
    Retried,
    Scheduler,
    SuiteOutcome,
)
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import Job
from superb_eval.suite.leases import LeaseWatcher
from superb_eval.suite.plan import Plan

OpenView = Callable[[SuiteOutcome, int], AbstractContextManager[EventHandler]]
"""Opens a view that adds to an outcome, given the number of runs; what it yields handles their events."""

BACKOFF = 5.0
"""Seconds before runs that died are retried; doubled at each attempt."""

POLL_SECONDS = 1.0
"""Seconds between two looks at runs that another suite executes."""


def run(plan: Plan, scheduler: Scheduler, open_view: OpenView, progress: Progress, retries: int = 2) -> SuiteOutcome:
    """Execute a plan's missing runs; a failure is part of the outcome and stops no other run.

    Runs whose process or machine died are retried, at most `retries` times; a run that waits for memory beside others
    counts none. Runs that another suite executes are waited
    for, and executed here where that suite dies.

    Raises:
        UserError: the disk is full or may not be written, or the scheduler can't be reached.
    """
    outcome = SuiteOutcome(done_before=list(plan.finished))
    ready = [job for job in plan.missing if _make_corpus(job, outcome, progress)]
    inputs.clear_cache()
    states = JobStates(plan.config.out)
    with open_view(outcome, len(ready)) as on_event:
        states.plan(ready)
        for attempt in range(retries + 1):
            wait = BACKOFF * 2**attempt if attempt < retries else None
            ready = _attempt(ready, scheduler, states, on_event, wait)
            if not ready:
                break
            time.sleep(wait or 0.0)
    return outcome


def _attempt(
    ready: list[Job], scheduler: Scheduler, states: JobStates, on_event: EventHandler, wait: float | None
) -> list[Job]:
    """Execute runs until other suites hold none of them; return those that died, to be retried after `wait` seconds.

    Without `wait`, those have failed.
    """
    died: list[Job] = []
    while ready:
        busy: list[Job] = []

        def handle(event: Event, busy: list[Job] = busy) -> None:
            if isinstance(event, Busy):
                busy.append(event.job)
            elif isinstance(event, Failed) and event.died and wait is not None:
                died.append(event.job)
                states.clear_failure(event.job)
                event = Retried(event.job, event.message, wait)
            _store(event, states)
            on_event(event)

        scheduler.run(ready, handle)
        ready = _wait_for_others(busy, states, on_event)
    return died


def _store(event: Event, states: JobStates) -> None:
    """Store the failure of a run whose process died before it could, or that a run waits for memory."""
    if isinstance(event, OutOfMemory):
        states.wait_for_memory(event.job)
    if isinstance(event, Failed) and event.died and states.failure(event.job) is None:
        log = Path(event.log)
        text = log.read_text(encoding="utf8", errors="replace") if event.log and log.is_file() else ""
        states.fail(event.job, event.message, event.fixable, text)


def _wait_for_others(busy: list[Job], states: JobStates, on_event: EventHandler) -> list[Job]:
    """Wait until other suites no longer execute one of the runs; report the finished ones, and return the others."""
    watcher = LeaseWatcher()
    free: list[Job] = []
    while busy and not free:
        time.sleep(POLL_SECONDS)
        inputs.clear_cache()
        for job in list(busy):
            lease = states.lease(job)
            if lease is not None and watcher.is_alive(lease):
                continue
            busy.remove(job)
            receipt = states.receipt(job)
            if receipt is not None and jobs.finished(job):
                on_event(Finished(job, receipt.run, receipt.figures, receipt.seconds))
            else:
                free.append(job)
    return free + busy


def _make_corpus(job: Job, outcome: SuiteOutcome, progress: Progress) -> bool:
    """Make the embedded corpus that a job needs, here, before several workers would; return whether it is ready."""
    if job.data is not None:
        return True
    try:
        embedded.ensure_folder(job.profile, job.part(), progress)
    except UserError as error:
        outcome.failed.append(Failed(job, str(error), fixable=True))
        return False
    return True
