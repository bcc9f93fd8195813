from __future__ import annotations

import pytest
import torch

from downstreams import registry
from superb_eval.analysis import official_plan
from superb_eval.analysis.official_plan import Throughput, project
from superb_eval.errors import UserError
from superb_eval.suite import plan as plans
from superb_eval.suite.jobs import SUPERB as TASKS
from superb_eval.suite.jobs import SuiteConfig

THROUGHPUT = Throughput(layers=3, width=8, stride=320, factor=20.0)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every piece of work is done once and takes a millisecond."""

    def timed(work, device: str) -> float:  # type: ignore[no-untyped-def]
        work()
        return 1e-3

    monkeypatch.setattr(official_plan, "timed", timed)


def test_every_task_has_an_official_size() -> None:
    assert sorted(name for name in registry.names() if registry.get(name).official_corpus) == sorted(TASKS)


def test_a_task_without_an_official_corpus_is_refused() -> None:
    with pytest.raises(UserError, match="no superb recipe for task 'gender'"):
        project("gender", THROUGHPUT, 1e12, "cpu")


def test_a_pooled_task_takes_one_pass_and_its_updates() -> None:
    found = project("ks", THROUGHPUT, store_bytes=1e12, device="cpu")
    clips = 51_094 + 6_798 + 3_081
    assert found.size == 4 * 3 * 8 * clips and found.live == 0
    assert found.extracting == pytest.approx(clips / 20)
    assert found.training == pytest.approx(200_000e-3, rel=0.2)


def test_frames_without_room_in_the_store_are_extracted_at_each_pass() -> None:
    """PR: 100 000 updates of 2 x 16 utterances, and dev a hundred times."""
    stored, live = (project("pr", THROUGHPUT, store_bytes, "cpu") for store_bytes in (1e15, 1.0))
    assert stored.live == 0 and stored.extracting == pytest.approx(stored.audio / 20)
    assert live.extracting < 1
    assert live.live == pytest.approx(12.0 * (3_200_000 + 2_703 * 100 + 2_620) / 20, rel=1e-3)


def test_er_counts_its_corpus_once_and_its_folds_five_times() -> None:
    found = project("er", THROUGHPUT, 1e12, "cpu")
    assert found.audio == pytest.approx(5_531 * 4.5)
    assert found.training == pytest.approx(5 * 30_000e-3, rel=0.1)


def test_a_plan_without_a_corpus_projects_the_official_tasks(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from superb_eval.runtime.progress import NoProgress

    plan = plans.make_plan(SuiteConfig(("fbank",), ("ks", "sid"), None, "superb", out=tmp_path))
    plans.estimate(plan, NoProgress())
    lines = plans.describe(plan, 1)
    assert "processes" in lines[0] and [line.split()[0] for line in lines[1:5]] == ["task", "ks", "sid", "all"]
    hours = [float(line.split()[-1]) for line in lines[2:5]]
    assert hours[2] == pytest.approx(hours[0] + hours[1], abs=0.02)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_official_head_takes_an_update(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On narrow features of short utterances."""
    from dataclasses import replace

    kind = registry.get(task)
    assert kind.official_corpus is not None
    monkeypatch.setattr(kind, "official_corpus", replace(kind.official_corpus, seconds=1.0))
    torch.manual_seed(0)
    assert project(task, THROUGHPUT, 1e12, "cpu").seconds > 0
