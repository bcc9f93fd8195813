"""The suite: what is missing runs, what is finished is kept, and one cell that fails stops no other."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from superb_eval.errors import UserError
from superb_eval.runtime.progress import NoProgress
from superb_eval.runtime.threads import available_cores
from superb_eval.suite import jobs, progress_view
from superb_eval.suite import plan as plans
from superb_eval.suite.events import Failed, Finished, JobProgress, Started, SuiteOutcome, Tell
from superb_eval.suite.execute import execute
from superb_eval.suite.executors import local
from superb_eval.suite.job_state import JobStates, Receipt
from superb_eval.suite.jobs import Job, Request
from superb_eval.suite.run import run

SHORT = ("train.steps=20", "train.eval_every=10", "train.lr=1e-2")


@pytest.fixture(autouse=True)
def _look_anew() -> None:
    jobs.forget()


@pytest.fixture
def request_(tones: Path, tmp_path: Path) -> Request:
    return Request(("fbank", "fbank_nonorm"), ("ks",), tones, overrides=SHORT, out=tmp_path / "r")


class Pretending:
    """A scheduler that runs nothing: it fails the upstreams it is told to, and leaves a record of the others."""

    def __init__(self, fails: dict[str, bool] | None = None) -> None:
        self.fails = fails or {}
        self.ran: list[Job] = []

    def run(self, wanted: Sequence[Job], tell: Tell) -> None:
        for job in wanted:
            tell(Started(job))
            tell(JobProgress(job, "features", 1, 2))
            self.ran.append(job)
            if job.upstream in self.fails:
                tell(Failed(job, "it would not", self.fails[job.upstream]))
                continue
            place = job.out / job.upstream / job.task / f"run{job.seed}"
            place.mkdir(parents=True, exist_ok=True)
            (place / "result.json").touch()
            receipt = Receipt(str(job), jobs.signature(job), str(place.relative_to(job.out)), "ACC 50.00", 1.0)
            JobStates(job.out).finish(job, receipt)
            tell(Finished(job, receipt.run, receipt.figures, receipt.seconds))


@contextmanager
def board(outcome: SuiteOutcome, total: int):  # type: ignore[no-untyped-def]
    yield progress_view.ProgressView(total, 1, outcome).tell


def go(request: Request, scheduler: Pretending) -> SuiteOutcome:
    jobs.forget()
    return run(plans.sort(request), scheduler, board, NoProgress())


def test_the_order_lets_cells_share_features() -> None:
    wanted = Request(("a", "b"), ("pr", "asr"), Path("x"), "mini", seeds=2)
    found = [(job.seed, job.upstream, job.task) for job in jobs.expand(wanted)]
    assert found[:4] == [(0, "a", "pr"), (0, "a", "asr"), (0, "b", "pr"), (0, "b", "asr")]
    assert [seed for seed, *_ in found] == [0] * 4 + [1] * 4
    assert len(jobs.expand(Request(("a",), ("all",), Path("x"), "mini"))) == 10


def test_overrides_may_be_for_one_task() -> None:
    wanted = Request(("a",), ("ks", "ic"), Path("x"), "mini", ("train.steps=3", "ic:head.slots=[size]"))
    found = {job.task: job.overrides for job in jobs.expand(wanted)}
    assert found == {"ks": ("train.steps=3",), "ic": ("train.steps=3", "head.slots=[size]")}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tasks": ("kss",)}, "Did you mean 'ks'"),
        ({"tasks": ()}, "--tasks: names none"),
        ({"upstreams": ()}, "--upstreams: names none"),
        ({"overrides": ("kz:train.lr=1",)}, "no task is called 'kz'"),
    ],
)
def test_what_is_asked_wrongly_is_explained(changes: dict, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match=says):
        jobs.expand(Request(**{"upstreams": ("a",), "tasks": ("ks",), "data": Path("x"), "profile": "mini", **changes}))


def test_finished_cells_are_kept_and_failed_ones_run_again(request_: Request) -> None:
    first = go(request_, Pretending({"fbank": True}))
    assert [f.job.upstream for f in first.failed] == ["fbank"] and len(first.finished) == 1
    again = Pretending()
    second = go(request_, again)
    assert [job.upstream for job in again.ran] == ["fbank"] and [job.upstream for job in second.kept] == [
        "fbank_nonorm"
    ]
    idle = Pretending()
    assert len(go(request_, idle).kept) == 2 and idle.ran == []


@pytest.mark.parametrize("change", ["corpus", "checkpoint", "overrides", "record"])
def test_a_cell_whose_inputs_changed_is_not_taken_for_finished(
    change: str, request_: Request, tones: Path, tmp_path: Path
) -> None:
    import shutil
    from dataclasses import replace

    data, weights = tmp_path / "corpus", tmp_path / "weights.bin"
    shutil.copytree(tones, data)
    weights.write_bytes(b"1")
    wanted = replace(request_, data=data, upstreams=(f"hubert_nano@{weights}",))
    (job,) = jobs.expand(wanted)
    go(wanted, Pretending())
    jobs.forget()
    assert jobs.finished(job)
    if change == "corpus":
        path = next((data / "audio").rglob("*.flac"))
        path.write_bytes(path.read_bytes() + b"0")
    elif change == "checkpoint":
        weights.write_bytes(b"22")
    elif change == "record":
        next((tmp_path / "r").rglob("result.json")).unlink()
    else:
        (job,) = jobs.expand(replace(wanted, overrides=("train.steps=9",)))
    jobs.forget()
    assert jobs.finished(job) is None


def test_finished_cells_are_recognised_without_torch_and_at_once(request_: Request) -> None:
    go(request_, Pretending())
    code = (
        "import sys, time; from pathlib import Path; from superb_eval.suite import plan, jobs;"
        f"r = jobs.Request(('fbank', 'fbank_nonorm'), ('ks',), Path({str(request_.data)!r}), overrides={SHORT!r},"
        f" out=Path({str(request_.out)!r}));"
        "before = time.process_time(); p = plan.sort(r); spent = time.process_time() - before;"
        "assert len(p.kept) == 2 and not p.missing, p; assert 'torch' not in sys.modules; assert spent < 2, spent"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_a_plan_tells_hours_size_and_time(request_: Request) -> None:
    plan = plans.sort(request_)
    plans.examine(plan, NoProgress())
    assert plan.problems == {}
    size = plan.sizes["ks", "mini"]
    assert size.utterances == 72 and 0.4 * 72 < size.seconds < 0.9 * 72
    assert plan.audio_hours() == pytest.approx(2 * size.seconds / 3600)
    assert plan.store_bytes() == 2 * 72 * 240 * 4, "means over time of one layer of 240, in four bytes"
    assert plan.unknown() == ["ks"]
    lines = "\n".join(plans.describe(plan, 2))
    assert "2 cells: 0 finished, 2 to run, 2 at a time" in lines and "training of ks, which was never timed" in lines


def test_a_plan_says_what_can_not_run(request_: Request) -> None:
    from dataclasses import replace

    plan = plans.sort(replace(request_, tasks=("ks", "sid"), upstreams=("fbank", "fbnk")))
    plans.examine(plan, NoProgress())
    told = "\n".join(plans.describe(plan, 1))
    assert "can't run: fbank sid" in told and "can't run: fbnk ks" in told and "Did you mean 'fbank'" in told


def test_the_board_counts_and_foretells() -> None:
    (job,) = jobs.expand(Request(("[bold]x",), ("ks",), Path("x"), "mini"))
    outcome = SuiteOutcome()
    shown = progress_view.ProgressView(4, 2, outcome)
    assert shown.left() is None
    shown.tell(Started(job))
    shown.tell(JobProgress(job, "training", 5, 10, "dev ACC 3"))
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(shown)
    assert "[bold]x ks" in console.export_text() and shown.running[job].progress
    shown.tell(Failed(job, "no", mendable=True))
    assert shown.summary().startswith("1 of 4 cells through, 1 failed, about")


@pytest.mark.slow
def test_real_workers_run_cells_and_survive_a_bad_one(request_: Request, tones: Path) -> None:
    from dataclasses import replace

    wanted = replace(request_, tasks=("ks", "sid"), seeds=2, store=request_.out / "store")
    outcome = run(plans.sort(wanted), local.Local(2), board, NoProgress())
    assert sorted(str(f.job) for f in outcome.finished) == sorted(
        f"{upstream} ks{seed}" for upstream in wanted.upstreams for seed in ("", " seed 1")
    )
    assert {f.job.task for f in outcome.failed} == {"sid"} and all(f.mendable for f in outcome.failed)
    jobs.forget()
    assert len(plans.sort(wanted).kept) == 4
    record = json.loads(next(request_.out.rglob("result.json")).read_text())
    assert record["hardware"]["torch_threads"] == max(1, available_cores() // 2)


@pytest.mark.slow
def test_seeds_that_share_an_order_run_along_with_the_first(request_: Request, tmp_path: Path) -> None:
    overrides = (*SHORT, "features.pooled=false", "train.order_seed=3")
    shared = replace(request_, upstreams=("fbank",), overrides=overrides, seeds=4, store_gb=1e-9)
    first, second, third, fourth = jobs.expand(shared)
    ledger = JobStates(shared.out)
    ledger.plan([first, second, third, fourth])
    ledger.fail(fourth, "it would not", mendable=True)
    with ledger.claim(third):
        receipt = execute(first, NoProgress())
        beside = ledger.receipt(second)
        assert beside is not None and jobs.finished(second) and jobs.finished(first)
        assert ledger.receipt(third) is None and ledger.receipt(fourth) is None
    assert (receipt.run, beside.run) == tuple(f"fbank/ks/{Path(r.run).name}" for r in (receipt, beside))
    assert ledger.claimed(first) is None and ledger.claimed(second) is None
    assert execute(second, NoProgress()) == beside, "it is not run again"
    alone = execute(replace(second, out=tmp_path / "alone"), NoProgress())
    assert alone.figures == beside.figures and Path(alone.run).name == Path(beside.run).name


def test_a_killed_worker_fails_its_cell_alone(request_: Request) -> None:
    """SIGKILL, as the system does when memory runs out."""
    scheduler, killed = local.Local(1), threading.Event()
    outcome = SuiteOutcome()
    whole = progress_view.ProgressView(2, 1, outcome)

    def tell(event: object) -> None:
        whole.tell(event)  # type: ignore[arg-type]
        if isinstance(event, JobProgress) and not killed.is_set():
            killed.set()
            (worker,) = scheduler._alive
            os.kill(worker.process.pid, signal.SIGKILL)

    scheduler.run(jobs.expand(request_), tell)
    assert len(outcome.finished) == 1 and len(outcome.failed) == 1
    assert "killed (signal 9)" in outcome.failed[0].sentence and not outcome.failed[0].mendable


def test_what_breaks_in_the_board_is_raised_and_nothing_hangs(request_: Request) -> None:
    def tell(event: object) -> None:
        raise BrokenPipeError("the terminal is gone")

    with pytest.raises(BrokenPipeError):
        local.Local(1).run(jobs.expand(request_)[:1], tell)
