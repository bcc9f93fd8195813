"""Runs one cell under the ledger: claimed first, beating while it runs, a receipt or the failure kept afterwards.

Whatever runs cells does it through here: workers of this machine, Ray's and SLURM's.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from superb_eval import recipe
from superb_eval.errors import UserError
from superb_eval.runs.config import RunConfig
from superb_eval.runtime.progress import Progress, Update
from superb_eval.suite import jobs
from superb_eval.suite.job_state import HeldLease, JobStates, Receipt
from superb_eval.suite.jobs import Job
from superb_eval.suite.leases import BusyError

if TYPE_CHECKING:
    from superb_eval.results.record import RunRecord


def execute(job: Job, progress: Progress) -> Receipt:
    """Run a cell, take up an interrupted one, or return the receipt of one that is finished.

    Planned cells that differ in their seed alone are run along with it where the recipe lets them share a pass.

    Raises:
        BusyError: another process runs it.
        UserError: something that the user can mend; the ledger keeps it, and so it does whatever else is raised.
    """
    ledger = JobStates(job.out)
    with ledger.claim(job) as hold:
        jobs.forget()
        receipt = ledger.receipt(job)
        if receipt is not None and jobs.finished(job):
            return receipt
        with ExitStack() as held, _failures_kept(ledger, job):
            holds = {job: hold}
            for other in _companions(ledger, job):
                with suppress(BusyError):  # somebody was quicker
                    holds[other] = held.enter_context(ledger.claim(other))
            # Taken before cells run: what changes meanwhile must not pass for what they were made with.
            signatures = {each: jobs.signature(each) for each in holds}
            receipts = _evaluate(signatures, _Noting(progress, list(holds.values())))
            for each, receipt in receipts.items():
                ledger.finish(each, receipt)
    return receipts[job]


def _companions(ledger: JobStates, job: Job) -> list[Job]:
    """Planned cells of other seeds that nobody runs, and that would hear the utterances in the same order."""
    train = recipe.load(recipe.find(job.task, job.profile), job.overrides).train
    if train is None or train.order_seed is None:
        return []
    others = [other for other in ledger.planned() if other != job and replace(other, seed=job.seed) == job]
    return [other for other in others if not (ledger.claimed(other) or ledger.failure(other) or jobs.finished(other))]


def extract(job: Job, progress: Progress) -> None:
    """Fill the store with the features of a cell, and claim it meanwhile. What is wrong, the cell itself will tell.

    Raises:
        BusyError: another process runs it.
    """
    from superb_eval.runs.config import prepare
    from superb_eval.runs.evaluate import load_features

    with JobStates(job.out).claim(job) as hold:
        noting = _Noting(progress, [hold])
        try:
            load_features(prepare(_order(job), noting), noting)
        except UserError as error:
            noting.log(str(error))


@contextmanager
def _failures_kept(ledger: JobStates, job: Job) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        ledger.fail(job, str(error), mendable=True)
        raise
    except Exception as error:
        ledger.fail(job, f"{type(error).__name__}: {error}", mendable=False, log=traceback.format_exc())
        raise


def _evaluate(signatures: Mapping[Job, str], progress: Progress) -> dict[Job, Receipt]:
    """Run cells that differ in their seeds; return what became of each, with its part of the seconds."""
    from superb_eval.runs.evaluate import evaluate_seeds

    before = time.perf_counter()
    found = evaluate_seeds(_order(next(iter(signatures))), [job.seed for job in signatures], progress)
    seconds = round((time.perf_counter() - before) / len(found), 3)
    return {
        job: Receipt(str(job), signature, str(folder.relative_to(job.out)), _figures(record), seconds)
        for (job, signature), (record, folder) in zip(signatures.items(), found, strict=True)
    }


def _figures(record: RunRecord) -> str:
    strict = [metric for metric in record.metrics if metric.protocol == "strict"]
    return ", ".join(f"{metric.heading} {metric.value:.2f}" for metric in strict)


def _order(job: Job) -> RunConfig:
    return RunConfig(
        upstream=job.upstream,
        task=job.task,
        data=job.data,
        profile=job.profile,
        overrides=job.overrides,
        seed=job.seed,
        out=job.out,
        device=job.device,
        store=job.store,
        store_gb=job.store_gb,
    )


class _Noting:
    """A progress that hands on, and notes in the claims how far the cells are."""

    def __init__(self, progress: Progress, holds: Sequence[HeldLease]) -> None:
        self.progress, self.holds = progress, holds

    def log(self, text: str) -> None:
        self.progress.log(text)

    @contextmanager
    def step(self, name: str, total: int) -> Iterator[Update]:
        with self.progress.step(name, total) as hand_on:

            def update(done: int, postfix: str = "", total: int | None = total) -> None:
                for hold in self.holds:
                    hold.note(name, done, total or 0, postfix)
                hand_on(done, postfix, total)

            yield update
