"""Makes finished runs again, in a folder of their own, to compare them with their records."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.results import platforms, recorded_upstream, verify_reruns
from superb_eval.results.folder import Run
from superb_eval.results.record import RunRecord
from superb_eval.results.recorded_command import parse_command
from superb_eval.results.verify import VerifyFinding
from superb_eval.results.verify_reruns import RerunResult
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runtime import threads
from superb_eval.runtime.progress import Progress

MOST_THREADS = 4096
SEED = 0
"""Of the choice of runs, so that the same command chooses the same runs."""


INPUTS = {"record", "recipe", "code", "weights", "data"}
"""Checks of `verify` that a run must pass to be worth making again: what they name makes another run of it."""


def repeatable(runs: Sequence[Run], findings: Sequence[VerifyFinding]) -> list[Run]:
    """Return the runs whose recipe, code, weights and data are still those of their records."""
    changed = {finding.folder for finding in findings if finding.check in INPUTS and not finding.remark}
    return [run for run in runs if run.folder not in changed]


def choose(runs: Sequence[Run], count: int) -> list[Run]:
    """Return `count` runs at random, or all where there are fewer; a larger count chooses the same ones first."""
    shuffled = sorted(runs, key=lambda run: run.folder)
    random.Random(SEED).shuffle(shuffled)  # noqa: S311
    return shuffled[:count]


def rerun_all(
    runs: Sequence[Run], data: Path | None, store: Path | None, progress: Progress, trusted: Sequence[str] = ()
) -> Iterator[RerunResult]:
    """Make runs again and compare each with its record. What they write is removed; the recorded folders are only read.

    `data` is where the corpora are now (None: where each run found them), `store` the feature store (None: the default
    one, which may hold the features that the recorded runs were made from), `trusted` the code that their upstreams may
    run.
    """
    for number, run in enumerate(runs, start=1):
        progress.log(f"run {number} of {len(runs)} again: {run.folder}")
        with tempfile.TemporaryDirectory(prefix="superb-eval-again-") as folder:
            try:
                recorded_upstream.check_trusted(run.record.upstream.address, trusted)
                again = rerun(run.record, Path(folder), data, store, progress)
            except UserError as error:
                yield RerunResult(run.folder, "FAILED", str(error))
            else:
                yield verify_reruns.compare(run.folder, run.record, again)


def rerun(record: RunRecord, out: Path, data: Path | None, store: Path | None, progress: Progress) -> RunRecord:
    """Make a run again by its recorded command, on the recorded device and at most the recorded number of threads.

    Raises:
        UserError: its command can't be read, or the run fails: its corpus, weights or device are missing.
    """
    command = parse_command(record)
    config = RunConfig(
        upstream=record.upstream.address,
        task=command.task,
        data=data or command.data,
        profile=record.profile,
        overrides=command.overrides,
        seed=record.seed,
        out=out,
        device=str(record.hardware.get(platforms.DEVICE, "cpu")),
        store=store,
        limit=record.limit,
    )
    with threads.limit_threads(_threads(record)):
        return evaluate(config, progress)[0]


def _threads(record: RunRecord) -> int:
    """Return the number of threads that a run was made on.

    Raises:
        UserError: its record holds another value.
    """
    count = record.hardware.get(platforms.TORCH_THREADS, threads.available_cores())
    if not (isinstance(count, int) and 1 <= count <= MOST_THREADS):
        raise UserError(f"hardware.{platforms.TORCH_THREADS} in its record is {count!r}, expected 1 to {MOST_THREADS}.")
    return count
