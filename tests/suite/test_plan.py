"""A plan: which run extracts, which trains others too, the order, the time and the memory of all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from superb_eval import recipe
from superb_eval.analysis import workload
from superb_eval.analysis.projection import TaskProjection, Throughput
from superb_eval.errors import UserError
from superb_eval.runtime.progress import NoProgress, Update
from superb_eval.suite import jobs, plan_text
from superb_eval.suite.estimates import estimate
from superb_eval.suite.jobs import SuiteConfig
from superb_eval.suite.plan import Plan, make_plan
from superb_eval.suite.schedule import START_SECONDS, simulate
from upstreams import registry

SECONDS = {"pr": (100.0, 20.0), "asr": (100.0, 300.0), "ks": (10.0, 50.0)}
"""Of extraction and of training."""


def planned(
    tmp_path: Path, seeds: tuple[int, ...] = (0,), tasks: tuple[str, ...] = ("pr", "asr", "ks"), *overrides: str
) -> Plan:
    """A plan whose every number is given by hand: PR and ASR have the same audio."""
    config = SuiteConfig(("a", "b"), tasks, tmp_path, "nano", overrides, seeds, out=tmp_path / "out")
    plan = Plan(config, missing=jobs.expand(config), memory=10e9)
    for task in tasks:
        chosen = recipe.load(recipe.find(task, "nano"), overrides)
        plan.workloads[task, "nano"] = replace(
            workload.of_size(chosen, 100, 150.0), audio="speech" if task in ("pr", "asr") else ""
        )
        for name in ("a", "b"):
            extracting, training = SECONDS[task]
            plan.throughputs[name, task, "nano"] = Throughput(3, 8, 320, 20.0)
            plan.projections[name, task, "nano"] = TaskProjection(task, 150.0, 1e9, extracting, 0.0, training, 4e9)
    return plan


def test_one_run_extracts_for_all_that_share_the_audio(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds=(0, 1))
    plan.arrange(1)
    runs = {str(run.job): run for run in plan.runs}
    assert runs["a pr"].extraction == 100 and runs["a pr"].after is None
    assert {name for name, run in runs.items() if run.after == runs["a pr"].job} == {
        "a asr",
        "a pr seed 1",
        "a asr seed 1",
    }
    assert runs["a ks seed 1"].after == runs["a ks"].job and runs["a ks seed 1"].extraction == 0
    assert sum(run.seconds for run in plan.runs) == 2 * (100 + 10 + 2 * (20 + 300 + 50)) + START_SECONDS


def test_seeds_with_one_order_are_one_training(tmp_path: Path) -> None:
    plan = planned(tmp_path, (0, 1, 2), ("pr",), "train.order_seed=0")
    plan.arrange(4)
    first, *others = (run for run in plan.runs if run.job.upstream == "a")
    assert first.training == 3 * 20 and first.extraction == 100
    assert all(run.together and run.after == first.job and run.seconds == 0 for run in others) and len(others) == 2


def test_the_longest_chain_comes_first(tmp_path: Path) -> None:
    """PR extracts for ASR, 400 s together; in the given order KS would come before them, and all take 9 min."""
    plan = planned(tmp_path, (0,), ("ks", "pr", "asr"))
    plan.arrange(2)
    assert [str(run.job) for run in plan.runs][:2] == ["a pr", "b pr"]
    lines = "\n".join(plan_text.describe(plan, 2))
    assert "time: about 8.1 min; one at a time 16 min, all at once 6.8 min" in lines
    assert plan_text.describe(plan, 1)[0] == "6 runs: 0 finished, 6 to run, 1 at a time"


def test_memory_limits_how_many_run_at_a_time(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    plan.arrange(3)
    lines = "\n".join(plan_text.describe(plan, 3))
    assert "memory: the 3 largest runs together about 12.00 GB of 10.00 GB free on cpu: fewer run at a time" in lines
    two, three = planned(tmp_path), planned(tmp_path)
    two.arrange(2)
    longer = simulate(plan.runs, 3, plan.memory) - simulate(two.runs, 2, two.memory)
    assert 0 <= longer <= START_SECONDS, "three at a time take as long as two, but for the start of a third process"
    three.memory = math.inf
    three.arrange(3)
    assert "memory" not in plan_text.describe(three, 3)[-1]


def test_a_plan_names_what_takes_most_and_its_parts(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    plan.arrange(2)
    lines = plan_text.describe(plan, 2)
    start = next(k for k, line in enumerate(lines) if line.startswith("a on one core: processes 20 s of audio"))
    headings = "task audio h store GB extract min live min train min all min memory GB"
    assert lines[start + 1].split() == headings.split()
    assert [line.split()[0] for line in lines[start + 2 : start + 6]] == ["pr", "asr", "ks", "all"]
    assert lines[start + 3].split()[3:] == ["1.67", "0.00", "5.00", "6.67", "4.0"]
    assert lines[start + 6] == "  asr takes most: 69 % (extraction 1.7 min, training and test 5.0 min)"


def test_runs_that_can_not_be_executed_take_nothing(tmp_path: Path) -> None:
    plan = planned(tmp_path, (0,), ("ks",))
    plan.problems[plan.missing[0]] = "no such weights"
    plan.arrange(2)
    assert sorted(run.seconds for run in plan.runs) == [0, 60 + START_SECONDS]


def test_a_plan_without_a_corpus_projects_the_official_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("superb_eval.analysis.projection.timed", lambda work, device: (work(), 1e-3)[1])
    plan = make_plan(SuiteConfig(("fbank",), ("ks", "sid"), None, "superb", out=tmp_path))
    estimate(plan, NoProgress(), 1)
    lines = plan_text.describe(plan, 1)
    start = next(k for k, line in enumerate(lines) if "processes" in line)
    hours = [float(line.split()[-2]) for line in lines[start + 2 : start + 5]]
    assert hours[2] == pytest.approx(hours[0] + hours[1], abs=0.02)
    assert lines[-1].startswith("by the published sizes of their corpora: ks, sid. Give --data") and not plan.problems


def test_training_times_of_finished_runs_are_used(tones: Path, tmp_path: Path) -> None:
    from superb_eval.runs.config import RunConfig
    from superb_eval.runs.evaluate import evaluate

    short = ("train.steps=4", "train.eval_every=2", "train.lr=1e-2")
    config = SuiteConfig(("fbank",), ("ks",), tones, "nano", short, (0, 1), out=tmp_path / "r", store=tmp_path / "s")
    record, _ = evaluate(RunConfig("fbank", "ks", tones, "nano", short, out=config.out, store=config.store))
    plan = make_plan(config)
    estimate(plan, NoProgress(), 1)
    assert plan.projections["fbank", "ks", "nano"].training == record.seconds["training and test"]


@pytest.mark.parametrize("broken", [False, True])
def test_each_task_is_counted_as_it_is_timed(broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(SuiteConfig(("fbank",), ("ks", "sid"), profile="superb", out=tmp_path))
    seen: list[tuple[int, int, int]] = []

    class Counting(NoProgress):
        @contextmanager
        def step(self, name: str, total: int, done: int = 0) -> Iterator[Update]:
            yield lambda done, postfix="", total=total: seen.append((done, total, len(plan.projections)))

    if broken:
        monkeypatch.setattr(registry, "load", lambda _: (_ for _ in ()).throw(UserError("it is broken")))
    estimate(plan, Counting(), 1)
    assert seen == [(1, 4, 0), (2, 4, 0), (3, 4, 0 if broken else 1), (4, 4, 0 if broken else 2)]
    assert set(plan.problems.values()) == ({"it is broken"} if broken else set())
