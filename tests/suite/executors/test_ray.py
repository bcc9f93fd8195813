"""Ray: a cluster of two workers on this machine, one of which is killed during a run."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from superb_eval.errors import UserError
from superb_eval.results import dataframe
from superb_eval.runtime.progress import NoProgress
from superb_eval.suite import inputs, jobs, run
from superb_eval.suite import plan as plans
from superb_eval.suite.events import Busy, Failed, JobProgress, Retried, Started
from superb_eval.suite.executors import ray as on_ray
from superb_eval.suite.executors.local import Local
from superb_eval.suite.executors.ray import Ray
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import SuiteConfig
from superb_eval.suite.resources import Resources
from tests.suite import progress_views

SHORT = ("train.steps=60", "train.eval_every=10", "train.lr=1e-2")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():  # type: ignore[no-untyped-def]
    """Two workers of one core each, for all tests of this file."""
    ray = pytest.importorskip("ray")
    # By default its workers run at the lowest priority; on a busy machine they would never start.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - its name
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    yield ray
    ray.shutdown()


@pytest.fixture
def config(tones: Path, tmp_path: Path) -> SuiteConfig:
    inputs.clear_cache()
    return SuiteConfig(
        ("fbank_nonorm",), ("ks",), tones, "mini", SHORT, (0, 1, 2), tmp_path / "r", store=tmp_path / "store"
    )


def figures(results: Path) -> list[tuple[object, ...]]:
    table = dataframe.load_results(results)
    return sorted(table[["upstream", "task", "seed", "metric", "value"]].itertuples(index=False, name=None))


def test_a_killed_worker_leaves_the_table_as_it_was(
    cluster: object, config: SuiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(run, "BACKOFF", 0.1)
    events: list[object] = []
    killed: list[int] = []

    def kill(event: object) -> None:
        events.append(event)
        lease = JobStates(config.out).lease(event.job) if isinstance(event, JobProgress) else None
        if lease is not None and lease.step.startswith("training") and not killed:
            killed.append(lease.pid)
            os.kill(lease.pid, signal.SIGKILL)

    class Killing(Ray):
        def run(self, planned, on_event) -> None:  # type: ignore[no-untyped-def]
            def handle(event: object) -> None:
                kill(event)
                on_event(event)

            super().run(planned, handle)

    monkeypatch.setattr(on_ray, "POLL_SECONDS", 0.05)
    monkeypatch.setattr("superb_eval.suite.job_state.HEARTBEAT", 0.05)
    slow = (*SHORT, "train.steps=700")
    chosen = replace(config, overrides=slow)
    outcome = run.run(
        plans.make_plan(chosen), Killing("local", Resources(), 2), progress_views.recording([]), NoProgress()
    )
    assert killed and [event for event in events if isinstance(event, Failed) and event.died]
    assert len(outcome.finished) == 3 and not outcome.failed
    unbroken = replace(chosen, out=tmp_path / "unbroken", store=tmp_path / "store2")
    inputs.clear_cache()
    run.run(plans.make_plan(unbroken), Local(1), progress_views.recording([]), NoProgress())
    assert figures(chosen.out) == figures(unbroken.out)


def test_runs_share_a_pass_and_failures_are_reported(cluster: object, config: SuiteConfig) -> None:
    from dataclasses import replace

    events: list[object] = []
    chosen = replace(config, upstreams=("fbank_nonorm", "fbnk"), seeds=(0, 1))
    outcome = run.run(
        plans.make_plan(chosen), Ray("local", Resources(), 2), progress_views.recording(events), NoProgress()
    )
    assert len(outcome.finished) == 2 and all("Did you mean 'fbank'" in event.message for event in outcome.failed)
    assert all(event.fixable for event in outcome.failed) and len(outcome.failed) == 2
    records = [(chosen.out / event.run / "result.json").read_text() for event in outcome.finished]
    assert all('"extracted": 0' in text for text in records), "the pass before them stored the features"
    assert not any(isinstance(event, Busy | Retried) for event in events)
    assert sum(isinstance(event, Started) for event in events) <= 4


def test_resources_that_no_machine_has_are_refused(cluster: object, config: SuiteConfig) -> None:
    with pytest.raises(UserError, match=r"no machine of the cluster has 99 core\(s\)"):
        Ray("local", Resources(cpu=99), 2).run(jobs.expand(config), print)


def test_without_ray_the_error_names_the_extra(config: SuiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"superb-eval\[ray\]"):
        Ray("local", Resources(), 2).run(jobs.expand(config), print)
