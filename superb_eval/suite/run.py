"""Runs what is missing of a suite: makes the embedded corpus first, then the cells, and keeps a receipt of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

from superb_eval import files
from superb_eval.console import Reporter
from superb_eval.corpora import embedded
from superb_eval.errors import UserError
from superb_eval.suite import jobs
from superb_eval.suite.events import Event, Failed, Finished, Outcome, Scheduler, Tell
from superb_eval.suite.jobs import Job
from superb_eval.suite.plan import Plan

Shown = Callable[[Outcome, int], AbstractContextManager[Tell]]
"""Makes a board for an outcome that grows to so many cells."""


def run(plan: Plan, scheduler: Scheduler, shown: Shown, reporter: Reporter) -> Outcome:
    """Run a plan's missing cells; one that fails stands in the outcome and stops no other."""
    outcome = Outcome(kept=list(plan.kept))
    ready = [job for job in plan.missing if _ready(job, outcome, reporter)]
    jobs.forget()
    # Taken before a cell runs: what changes meanwhile must not pass for what it was made with.
    signatures = {job: jobs.signature(job) for job in ready}
    with shown(outcome, len(ready)) as tell:

        def told(event: Event) -> None:
            if isinstance(event, Finished):
                _keep_receipt(event, signatures[event.job])
            tell(event)

        if ready:
            scheduler.run(ready, told)
    return outcome


def _ready(job: Job, outcome: Outcome, reporter: Reporter) -> bool:
    """Make the embedded corpus of a job, if it needs it: here, before workers would make it at once."""
    if job.data is not None:
        return True
    try:
        embedded.folder(job.profile, job.task, reporter)
    except UserError as error:
        outcome.failed.append(Failed(job, str(error), mendable=True))
        return False
    return True


def _keep_receipt(event: Finished, signature: str) -> None:
    content = {"cell": str(event.job), "signature": signature, "run": event.run}
    files.write_text(event.job.receipt(), json.dumps(content) + "\n")
