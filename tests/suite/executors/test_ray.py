"""Ray: a cluster of two workers of this machine, one of which is killed in the middle."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from superb_eval.errors import UserError
from superb_eval.results import dataframe
from superb_eval.runtime.progress import NoProgress
from superb_eval.suite import jobs, run
from superb_eval.suite import plan as plans
from superb_eval.suite.events import Busy, Failed, JobProgress, Retried, Started
from superb_eval.suite.executors import ray as on_ray
from superb_eval.suite.executors.local import Local
from superb_eval.suite.executors.ray import Ray
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import Request
from superb_eval.suite.resources import Resources
from tests.suite import progress_views

SHORT = ("train.steps=60", "train.eval_every=10", "train.lr=1e-2")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():  # type: ignore[no-untyped-def]
    """Two workers of one core each, for all tests of this file."""
    ray = pytest.importorskip("ray")
    # Its workers are made to yield to everything else; on a busy machine they would never begin.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - its name
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    yield ray
    ray.shutdown()


@pytest.fixture
def request_(tones: Path, tmp_path: Path) -> Request:
    jobs.forget()
    return Request(("fbank_nonorm",), ("ks",), tones, "mini", SHORT, 3, tmp_path / "r", store=tmp_path / "store")


def figures(results: Path) -> list[tuple[object, ...]]:
    table = dataframe.load_results(results)
    return sorted(table[["upstream", "task", "seed", "metric", "value"]].itertuples(index=False, name=None))


def test_a_killed_worker_leaves_the_table_as_it_was(
    cluster: object, request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(run, "BACKOFF", 0.1)
    told: list[object] = []
    killed: list[int] = []

    def kill(event: object) -> None:
        told.append(event)
        claim = JobStates(request_.out).claimed(event.job) if isinstance(event, JobProgress) else None
        if claim is not None and claim.stage.startswith("training") and not killed:
            killed.append(claim.pid)
            os.kill(claim.pid, signal.SIGKILL)

    class Killing(Ray):
        def run(self, wanted, tell) -> None:  # type: ignore[no-untyped-def]
            def told_(event: object) -> None:
                kill(event)
                tell(event)

            super().run(wanted, told_)

    monkeypatch.setattr(on_ray, "EVERY", 0.05)
    monkeypatch.setattr("superb_eval.suite.job_state.BEAT", 0.05)
    slow = (*SHORT, "train.steps=1500")
    wanted = replace(request_, overrides=slow)
    outcome = run.run(plans.sort(wanted), Killing("local", Resources(), 2), progress_views.keeping([]), NoProgress())
    assert killed and [event for event in told if isinstance(event, Failed) and event.died]
    assert len(outcome.finished) == 3 and not outcome.failed
    unbroken = replace(wanted, out=tmp_path / "unbroken", store=tmp_path / "store2")
    jobs.forget()
    run.run(plans.sort(unbroken), Local(1), progress_views.keeping([]), NoProgress())
    assert figures(wanted.out) == figures(unbroken.out)


def test_cells_share_a_pass_and_failures_are_told(cluster: object, request_: Request) -> None:
    from dataclasses import replace

    told: list[object] = []
    wanted = replace(request_, upstreams=("fbank_nonorm", "fbnk"), seeds=2)
    outcome = run.run(plans.sort(wanted), Ray("local", Resources(), 2), progress_views.keeping(told), NoProgress())
    assert len(outcome.finished) == 2 and all("Did you mean 'fbank'" in event.sentence for event in outcome.failed)
    assert all(event.mendable for event in outcome.failed) and len(outcome.failed) == 2
    records = [(wanted.out / event.run / "result.json").read_text() for event in outcome.finished]
    assert all('"extracted": 0' in text for text in records), "the pass before them filled the store"
    assert not any(isinstance(event, Busy | Retried) for event in told)
    assert sum(isinstance(event, Started) for event in told) <= 4


def test_what_no_machine_has_is_refused_rather_than_waited_for(cluster: object, request_: Request) -> None:
    with pytest.raises(UserError, match=r"no machine of the cluster has 99 core\(s\)"):
        Ray("local", Resources(cpu=99), 2).run(jobs.expand(request_), print)


def test_without_ray_the_extra_is_named(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"superb-eval\[ray\]"):
        Ray("local", Resources(), 2).run(jobs.expand(request_), print)
