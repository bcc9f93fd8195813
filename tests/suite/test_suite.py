"""The suite: missing runs are executed, finished ones are skipped, and a failed run stops no other."""

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
from superb_eval.suite import inputs, jobs, plan_text, progress_view
from superb_eval.suite import plan as plans
from superb_eval.suite.estimates import estimate
from superb_eval.suite.events import EventHandler, Failed, Finished, JobProgress, Started, SuiteOutcome
from superb_eval.suite.execute import execute
from superb_eval.suite.executors import local
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import Job, SuiteConfig
from superb_eval.suite.run import run
from superb_eval.suite.schedule import RunEstimate
from superb_eval.suite.state_files import Receipt
from superb_eval.suite.time_left import TimeLeft

SHORT = ("train.steps=20", "train.eval_every=10", "train.lr=1e-2")


@pytest.fixture(autouse=True)
def _without_cached_states() -> None:
    inputs.clear_cache()


@pytest.fixture
def config(tones: Path, tmp_path: Path) -> SuiteConfig:
    return SuiteConfig(("fbank", "fbank_nonorm"), ("ks",), tones, overrides=SHORT, out=tmp_path / "r")


class FakeScheduler:
    """A scheduler that computes nothing: given upstreams fail, and the others get an empty record."""

    def __init__(self, fails: dict[str, bool] | None = None) -> None:
        self.fails = fails or {}
        self.ran: list[Job] = []

    def run(self, planned: Sequence[Job], on_event: EventHandler) -> None:
        for job in planned:
            on_event(Started(job))
            on_event(JobProgress(job, "features", 1, 2))
            self.ran.append(job)
            if job.upstream in self.fails:
                on_event(Failed(job, "it failed", self.fails[job.upstream]))
                continue
            folder = job.out / job.upstream / job.task / f"run{job.seed}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "result.json").touch()
            receipt = Receipt(jobs.signature(job), str(folder.relative_to(job.out)), "ACC 50.00", 1.0)
            JobStates(job.out).finish(job, receipt)
            on_event(Finished(job, receipt.run, receipt.figures, receipt.seconds))


@contextmanager
def open_view(outcome: SuiteOutcome, total: int):  # type: ignore[no-untyped-def]
    yield progress_view.ProgressView(total, outcome, TimeLeft((), 1)).handle


def run_suite(config: SuiteConfig, scheduler: FakeScheduler) -> SuiteOutcome:
    inputs.clear_cache()
    return run(plans.make_plan(config), scheduler, open_view, NoProgress())


def test_the_order_of_runs_reuses_features() -> None:
    config = SuiteConfig(("a", "b"), ("pr", "asr"), Path("x"), "mini", seeds=(0, 1))
    order = [(job.seed, job.upstream, job.task) for job in jobs.expand(config)]
    assert order[:4] == [(0, "a", "pr"), (0, "a", "asr"), (0, "b", "pr"), (0, "b", "asr")]
    assert [seed for seed, *_ in order] == [0] * 4 + [1] * 4
    assert len(jobs.expand(SuiteConfig(("a",), ("all",), Path("x"), "mini"))) == 10


def test_overrides_may_be_for_one_task() -> None:
    config = SuiteConfig(("a",), ("ks", "ic"), Path("x"), "mini", ("train.steps=3", "ic:head.slots=[size]"))
    overrides = {job.task: job.overrides for job in jobs.expand(config)}
    assert overrides == {"ks": ("train.steps=3",), "ic": ("train.steps=3", "head.slots=[size]")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ("kss",)}, "Did you mean 'ks'"),
        ({"tasks": ()}, "--tasks: names none"),
        ({"upstreams": ()}, "--upstreams: names none"),
        ({"overrides": ("kz:train.lr=1",)}, "no task is called 'kz'"),
    ],
)
def test_wrong_options_are_explained(changes: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match=message):
        jobs.expand(
            SuiteConfig(**{"upstreams": ("a",), "tasks": ("ks",), "data": Path("x"), "profile": "mini", **changes})
        )


def test_finished_runs_are_skipped_and_failed_ones_run_again(config: SuiteConfig) -> None:
    first = run_suite(config, FakeScheduler({"fbank": True}))
    assert [f.job.upstream for f in first.failed] == ["fbank"] and len(first.finished) == 1
    again = FakeScheduler()
    second = run_suite(config, again)
    assert [job.upstream for job in again.ran] == ["fbank"] and [job.upstream for job in second.done_before] == [
        "fbank_nonorm"
    ]
    idle = FakeScheduler()
    assert len(run_suite(config, idle).done_before) == 2 and idle.ran == []


@pytest.mark.parametrize("change", ["corpus", "checkpoint", "overrides", "record"])
def test_a_run_whose_inputs_changed_does_not_count_as_finished(
    change: str, config: SuiteConfig, tones: Path, tmp_path: Path
) -> None:
    import shutil
    from dataclasses import replace

    data, weights = tmp_path / "corpus", tmp_path / "weights.bin"
    shutil.copytree(tones, data)
    weights.write_bytes(b"1")
    chosen = replace(config, data=data, upstreams=(f"hubert_nano@{weights}",))
    (job,) = jobs.expand(chosen)
    run_suite(chosen, FakeScheduler())
    inputs.clear_cache()
    assert jobs.finished(job)
    if change == "corpus":
        path = next((data / "audio").rglob("*.flac"))
        path.write_bytes(path.read_bytes() + b"0")
    elif change == "checkpoint":
        weights.write_bytes(b"22")
    elif change == "record":
        next((tmp_path / "r").rglob("result.json")).unlink()
    else:
        (job,) = jobs.expand(replace(chosen, overrides=("train.steps=9",)))
    inputs.clear_cache()
    assert jobs.finished(job) is None


def test_finished_runs_are_recognised_at_once_and_without_torch(config: SuiteConfig) -> None:
    run_suite(config, FakeScheduler())
    code = (
        "import sys, time; from pathlib import Path; from superb_eval.suite import plan, jobs;"
        f"c = jobs.SuiteConfig(('fbank', 'fbank_nonorm'), ('ks',), Path({str(config.data)!r}), overrides={SHORT!r},"
        f" out=Path({str(config.out)!r}));"
        "before = time.process_time(); p = plan.make_plan(c); spent = time.process_time() - before;"
        "assert len(p.finished) == 2 and not p.missing, p; assert 'torch' not in sys.modules; assert spent < 2, spent"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_a_plan_prints_hours_size_and_time(config: SuiteConfig) -> None:
    plan = plans.make_plan(config)
    estimate(plan, NoProgress(), 2)
    assert plan.problems == {}
    workload = plan.workloads["ks", "mini"]
    assert workload.clips == 72 and workload.utterances == (36, 18, 18) and 0.4 < workload.seconds < 0.9
    assert plan.audio_hours() == pytest.approx(2 * 72 * workload.seconds / 3600)
    assert plan.store_bytes() == 2 * 72 * 240 * 4, "means over time of one layer of 240, in four bytes"
    lines = "\n".join(plan_text.describe(plan, 2))
    assert "2 runs: 0 finished, 2 to run, 2 at a time" in lines and "fbank on one core: processes" in lines
    assert "time: about" in lines and "memory: the 2 largest runs together about" in lines


@pytest.mark.parametrize("made", [[], ["ks"]])
def test_a_plan_knows_the_embedded_corpus_before_it_is_synthesised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[str]
) -> None:
    """After `run ks`, the parts of other tasks are still to be made: once, they were reported as missing manifests."""
    monkeypatch.setattr("superb_eval.corpora.embedded.default_folder", lambda profile: tmp_path / profile)
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini/corpus.json").write_text(json.dumps({"name": "synthetic", "tasks": made}))
    config = SuiteConfig(("fbank",), ("asr", "sid"), None, out=tmp_path / "r")
    plan = plans.make_plan(config)
    estimate(plan, NoProgress(), 2)
    lines = "\n".join(plan_text.describe(plan, 1))
    assert plan.problems == {} and "can't run" not in lines
    assert "embedded corpus: asr, sid will be synthesised first, once" in lines
    assert plan.audio_hours() == pytest.approx(2 * 1054 / 3600, rel=1e-3) and "audio to process: 0.59 h" in lines


def test_a_plan_prints_what_can_not_run(config: SuiteConfig) -> None:
    from dataclasses import replace

    plan = plans.make_plan(replace(config, tasks=("ks", "sid"), upstreams=("fbank", "fbnk")))
    estimate(plan, NoProgress(), 2)
    lines = "\n".join(plan_text.describe(plan, 1))
    assert "can't run: fbank sid" in lines and "can't run: fbnk ks" in lines and "Did you mean 'fbank'" in lines


def test_the_progress_view_counts_and_estimates() -> None:
    (job,) = jobs.expand(SuiteConfig(("[bold]x",), ("ks",), Path("x"), "mini"))
    outcome = SuiteOutcome()
    view = progress_view.ProgressView(4, outcome, TimeLeft([RunEstimate(job, training=600.0)], 1))
    view.handle(Started(job))
    view.handle(JobProgress(job, "training", 5, 10, "dev ACC 3"))
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(view)
    assert "[bold]x ks" in console.export_text() and view.running[job].progress
    view.handle(Failed(job, "no", fixable=True))
    assert view.summary().startswith("1 of 4 runs done, 1 failed, about 0 s left")


@pytest.mark.slow
def test_workers_execute_runs_and_survive_a_failure(config: SuiteConfig, tones: Path) -> None:
    from dataclasses import replace

    chosen = replace(config, tasks=("ks", "sid"), seeds=(0, 1), store=config.out / "store")
    outcome = run(plans.make_plan(chosen), local.Local(2), open_view, NoProgress())
    assert sorted(str(f.job) for f in outcome.finished) == sorted(
        f"{upstream} ks{seed}" for upstream in chosen.upstreams for seed in ("", " seed 1")
    )
    assert {f.job.task for f in outcome.failed} == {"sid"} and all(f.fixable for f in outcome.failed)
    inputs.clear_cache()
    assert len(plans.make_plan(chosen).finished) == 4
    record = json.loads(next(config.out.rglob("result.json")).read_text())
    assert record["hardware"]["torch_threads"] == max(1, available_cores() // 2)


@pytest.mark.slow
def test_seeds_that_share_an_order_are_executed_with_the_first(config: SuiteConfig, tmp_path: Path) -> None:
    overrides = (*SHORT, "features.pooled=false", "train.order_seed=3")
    shared = replace(config, upstreams=("fbank",), overrides=overrides, seeds=(0, 1, 2, 3), store_gb=1e-9)
    first, second, third, fourth = jobs.expand(shared)
    states = JobStates(shared.out)
    states.plan([first, second, third, fourth])
    states.fail(fourth, "it failed", fixable=True)
    with states.acquire(third):
        receipt = execute(first, NoProgress())
        shared_receipt = states.receipt(second)
        assert shared_receipt is not None and jobs.finished(second) and jobs.finished(first)
        assert states.receipt(third) is None and states.receipt(fourth) is None
    assert (receipt.run, shared_receipt.run) == tuple(f"fbank/ks/{Path(r.run).name}" for r in (receipt, shared_receipt))
    assert states.lease(first) is None and states.lease(second) is None
    assert execute(second, NoProgress()) == shared_receipt, "it is not executed again"
    alone = execute(replace(second, out=tmp_path / "alone"), NoProgress())
    assert alone.figures == shared_receipt.figures and Path(alone.run).name == Path(shared_receipt.run).name


def test_a_killed_worker_fails_its_run_alone(config: SuiteConfig) -> None:
    """SIGKILL, as the system does when memory runs out."""
    scheduler, killed = local.Local(1), threading.Event()
    outcome = SuiteOutcome()
    view = progress_view.ProgressView(2, outcome, TimeLeft((), 1))

    def handle(event: object) -> None:
        view.handle(event)  # type: ignore[arg-type]
        if isinstance(event, JobProgress) and not killed.is_set():
            killed.set()
            (worker,) = scheduler._alive
            os.kill(worker.process.pid, signal.SIGKILL)

    scheduler.run(jobs.expand(config), handle)
    assert len(outcome.finished) == 1 and len(outcome.failed) == 1
    assert "killed (signal 9)" in outcome.failed[0].message and not outcome.failed[0].fixable


def test_an_error_of_the_view_is_raised_and_nothing_hangs(config: SuiteConfig) -> None:
    def handle(event: object) -> None:
        raise BrokenPipeError("the terminal is gone")

    with pytest.raises(BrokenPipeError):
        local.Local(1).run(jobs.expand(config)[:1], handle)
