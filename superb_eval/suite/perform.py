"""Runs one cell under the ledger: claimed first, beating while it runs, a receipt or the failure kept afterwards.

Whatever runs cells does it through here: workers of this machine, Ray's and SLURM's.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from superb_eval.console import Reporter, Update
from superb_eval.errors import UserError
from superb_eval.order import Order
from superb_eval.suite import jobs
from superb_eval.suite.jobs import Job
from superb_eval.suite.ledger import Hold, Ledger, Receipt


def perform(job: Job, reporter: Reporter) -> Receipt:
    """Run a cell, take up an interrupted one, or return the receipt of one that is finished.

    Raises:
        BusyError: another process runs it.
        UserError: something that the user can mend; the ledger keeps it, and so it does whatever else is raised.
    """
    ledger = Ledger(job.out)
    with ledger.claim(job) as hold:
        jobs.forget()
        receipt = ledger.receipt(job)
        if receipt is not None and jobs.finished(job):
            return receipt
        # Taken before the cell runs: what changes meanwhile must not pass for what it was made with.
        signature = jobs.signature(job)
        with _failures_kept(ledger, job):
            receipt = _evaluate(job, signature, _Noting(reporter, hold))
        ledger.finish(job, receipt)
    return receipt


def extract(job: Job, reporter: Reporter) -> None:
    """Fill the store with the features of a cell, and claim it meanwhile. What is wrong, the cell itself will tell.

    Raises:
        BusyError: another process runs it.
    """
    from superb_eval import cell, order

    with Ledger(job.out).claim(job) as hold:
        noting = _Noting(reporter, hold)
        try:
            cell.features(order.prepare(_order(job), noting), noting)
        except UserError as error:
            noting.say(str(error))


@contextmanager
def _failures_kept(ledger: Ledger, job: Job) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        ledger.fail(job, str(error), mendable=True)
        raise
    except Exception as error:
        ledger.fail(job, f"{type(error).__name__}: {error}", mendable=False, log=traceback.format_exc())
        raise


def _evaluate(job: Job, signature: str, reporter: Reporter) -> Receipt:
    from superb_eval.cell import evaluate

    before = time.perf_counter()
    record, folder = evaluate(_order(job), reporter)
    strict = [metric for metric in record.metrics if metric.protocol == "strict"]
    figures = ", ".join(f"{metric.heading} {metric.value:.2f}" for metric in strict)
    run = str(folder.relative_to(job.out))
    return Receipt(str(job), signature, run, figures, round(time.perf_counter() - before, 3))


def _order(job: Job) -> Order:
    return Order(
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
    """A reporter that hands on, and notes in the claim how far the cell is."""

    def __init__(self, reporter: Reporter, hold: Hold) -> None:
        self.reporter, self.hold = reporter, hold

    def say(self, text: str) -> None:
        self.reporter.say(text)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Update]:
        with self.reporter.stage(name, total) as hand_on:

            def update(done: int, beside: str = "", total: int | None = total) -> None:
                self.hold.note(name, done, total or 0, beside)
                hand_on(done, beside, total)

            yield update
