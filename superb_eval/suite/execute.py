"""Executes one run under a lease: acquired first, with heartbeats while it runs; a receipt or the failure is stored.

Every scheduler executes its runs by this module: workers of this machine, Ray's and SLURM's.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from superb_eval import recipe
from superb_eval.errors import OwnCodeError, UserError
from superb_eval.runs.config import RunConfig
from superb_eval.runtime import out_of_memory, system_errors
from superb_eval.runtime.progress import Progress, Update
from superb_eval.suite import inputs, jobs
from superb_eval.suite.job_state import HeldLease, JobStates
from superb_eval.suite.jobs import Job
from superb_eval.suite.leases import BusyError
from superb_eval.suite.state_files import Receipt

if TYPE_CHECKING:
    from superb_eval.results.record import RunRecord


def execute(job: Job, progress: Progress) -> Receipt:
    """Execute a run, resume an interrupted one, or return the receipt of a finished one.

    Planned runs that differ in their seed alone are executed with it where the recipe lets them share a pass.

    Raises:
        BusyError: another process executes it.
        UserError: something that the user can fix. It is stored as the run's failure, and so is any other error.
    """
    states = JobStates(job.out)
    with states.acquire(job) as lease:
        inputs.clear_cache()
        receipt = states.receipt(job)
        if receipt is not None and jobs.finished(job):
            return receipt
        with ExitStack() as stack, _failure_stored(states, job):
            leases = {job: lease}
            for other in _seeds_to_share(states, job):
                with suppress(BusyError):  # another process was faster
                    leases[other] = stack.enter_context(states.acquire(other))
            # Computed before the runs: an input that changes meanwhile must not count as what they were made with.
            signatures = {each: jobs.signature(each) for each in leases}
            receipts = _evaluate(signatures, _LeaseProgress(progress, list(leases.values())))
            for each, receipt in receipts.items():
                states.finish(each, receipt)
    return receipts[job]


def _seeds_to_share(states: JobStates, job: Job) -> list[Job]:
    """Return planned runs of other seeds that no process executes, and that read the utterances in the same order."""
    train = recipe.load(recipe.find(job.task, job.profile), job.overrides).train
    if train is None or train.order_seed is None:
        return []
    others = [other for other in states.planned() if other != job and replace(other, seed=job.seed) == job]
    return [other for other in others if not (states.lease(other) or states.failure(other) or jobs.finished(other))]


def extract(job: Job, progress: Progress) -> None:
    """Store the features of a run, under its lease. A user's mistake is only logged: the run itself will report it.

    Raises:
        BusyError: another process executes the run.
    """
    from superb_eval.runs.config import prepare
    from superb_eval.runs.evaluate import load_features

    with JobStates(job.out).acquire(job) as lease:
        progress = _LeaseProgress(progress, [lease])
        try:
            load_features(prepare(_run_config(job), progress), progress)
        except UserError as error:
            progress.log(str(error))


@contextmanager
def _failure_stored(states: JobStates, job: Job) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if out_of_memory.calls_for_waiting(error):
            raise  # no failure: it continues once other runs have finished
        sentence = _sentence(error, job.device)
        plain = isinstance(error, UserError) and not isinstance(error, OwnCodeError)
        log = "" if plain else traceback.format_exc()
        if sentence is None:
            states.fail(job, f"{type(error).__name__}: {error}", fixable=False, log=log)
            raise
        memory_ran_out = out_of_memory.is_out_of_memory(error)
        states.fail(job, sentence, fixable=True, log=log, memory_ran_out=memory_ran_out)
        if isinstance(error, UserError):
            raise
        raise UserError(sentence) from error


def _sentence(error: Exception, device: str) -> str | None:
    """Return what the user can do about an error; None where something broke."""
    if isinstance(error, UserError):
        return str(error)
    if out_of_memory.is_out_of_memory(error):
        return (
            f"memory of {device} ran out ({out_of_memory.first_line(error)}). Lower -o train.batch_size or "
            "-o features.batch_seconds, or end what else uses it."
        )
    return system_errors.sentence(error)


def _evaluate(signatures: Mapping[Job, str], progress: Progress) -> dict[Job, Receipt]:
    """Execute runs that differ in their seeds; return their receipts, each with its share of the seconds."""
    from superb_eval.runs.evaluate import evaluate_seeds

    before = time.perf_counter()
    results = evaluate_seeds(_run_config(next(iter(signatures))), [job.seed for job in signatures], progress)
    seconds = round((time.perf_counter() - before) / len(results), 3)
    return {
        job: Receipt(signature, str(folder.relative_to(job.out)), _figures(record), seconds)
        for (job, signature), (record, folder) in zip(signatures.items(), results, strict=True)
    }


def _figures(record: RunRecord) -> str:
    strict = [metric for metric in record.metrics if metric.protocol == "strict"]
    return ", ".join(f"{metric.heading} {metric.value:.2f}" for metric in strict)


def _run_config(job: Job) -> RunConfig:
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
        loggers=job.loggers,
        limit=job.limit,
    )


class _LeaseProgress:
    """A `Progress` that forwards to another one and writes each step into leases."""

    def __init__(self, progress: Progress, leases: Sequence[HeldLease]) -> None:
        self.progress, self.leases = progress, leases

    def log(self, text: str) -> None:
        self.progress.log(text)

    @contextmanager
    def step(self, name: str, total: int, done: int = 0) -> Iterator[Update]:
        with self.progress.step(name, total, done) as forward:

            def update(done: int, postfix: str = "", total: int | None = total) -> None:
                for lease in self.leases:
                    lease.report(name, done, total or 0, postfix)
                forward(done, postfix, total)

            yield update
