"""Which run starts next: in order, after the run that stores its features, within memory, and alone at last."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from superb_eval.suite import jobs
from superb_eval.suite.jobs import Job, SuiteConfig
from superb_eval.suite.schedule import RunEstimate, RunQueue, arrange, simulate


def planned(count: int) -> list[Job]:
    return jobs.expand(SuiteConfig(tuple("abcdefgh"[:count]), ("ks",), Path("x"), "nano"))


def estimates(*seconds: float, memory: float = 0.0) -> list[RunEstimate]:
    """Runs without extraction that need the same memory."""
    return [RunEstimate(job, 0.0, each, memory) for job, each in zip(planned(len(seconds)), seconds, strict=True)]


def start_all(queue: RunQueue) -> str:
    """Start every run that may start; return their upstreams' names."""
    return "".join(run.job.upstream for run in iter(queue.start, None))


@pytest.mark.parametrize(("workers", "expected"), [(1, 20.0), (2, 11.0), (3, 9.0), (99, 9.0)])
def test_durations_are_listed_in_order(workers: int, expected: float) -> None:
    """With two: 2, then 9 until 11; 3, then 2 until 5, then 4 until 9."""
    runs = estimates(2, 3, 9, 2, 4)
    assert simulate(runs, workers) == expected


def test_the_longest_come_first_where_that_is_faster() -> None:
    runs = estimates(2, 2, 2, 6)
    assert simulate(runs, 2) == 8 and simulate(arrange(runs, 2), 2) == 6
    assert arrange(runs, 1) == runs, "in the given order where that takes no longer"


def test_no_run_reads_features_before_they_are_stored() -> None:
    first, second, third = planned(3)
    runs = [RunEstimate(first, 4, 3), RunEstimate(second, 0, 5, after=first), RunEstimate(third, 1, 1)]
    assert simulate(runs, 1) == 14 and simulate(runs, 2) == 4 + 5 and simulate(runs, 3) == 4 + 5
    queue = RunQueue(runs)
    assert start_all(queue) == "ac"
    queue.features_stored(first)
    assert start_all(queue) == "b"


def test_seeds_that_train_together_count_as_one_training() -> None:
    first, second, third = planned(3)
    runs = [RunEstimate(first, 4, 3), *(RunEstimate(job, after=first, together=True) for job in (second, third))]
    assert simulate(runs, 1) == simulate(runs, 3) == 7
    queue = RunQueue(runs)
    assert start_all(queue) == "a"
    queue.features_stored(first)
    assert start_all(queue) == "", "it trains them too"
    queue.finish(first)
    assert start_all(queue) == "bc"


def test_a_run_whose_features_will_not_come_starts_all_the_same() -> None:
    """Its run failed, or was finished before."""
    first, second = planned(2)
    queue = RunQueue([RunEstimate(second, after=first)])
    assert start_all(queue) == "b"


def test_a_run_starts_only_where_its_memory_fits() -> None:
    runs = [RunEstimate(job, 0, 1, memory) for job, memory in zip(planned(4), (6.0, 5.0, 4.0, 30.0), strict=True)]
    queue = RunQueue(runs, memory=10.0)
    assert start_all(queue) == "ac", "the second doesn't fit beside the first; the third does"
    queue.finish(runs[0].job)
    assert start_all(queue) == "b"
    queue.finish(runs[1].job)
    assert start_all(queue) == ""
    queue.finish(runs[2].job)
    assert start_all(queue) == "d", "alone, whatever it needs"
    assert simulate(runs, 4, memory=10.0) == 3 and simulate(runs, 4) == 1


def test_a_run_that_ran_out_of_memory_has_fewer_neighbours_each_time() -> None:
    runs = estimates(*[1] * 6)
    a, b, c, d, *_ = (run.job for run in runs)
    queue = RunQueue(runs)
    assert [queue.start() for _ in range(4)] == runs[:4]
    queue.postpone(a)
    assert queue.waiting[-1].job == a and not queue.is_alone(a)
    assert start_all(queue) == "ef" and queue.waiting == [runs[0]], "beside one other at most, of three before"
    for job in (b, c, d, runs[4].job):
        queue.finish(job)
        assert (start_all(queue) == "a") == (job == runs[4].job)
    queue.postpone(a)
    assert queue.is_alone(a) and start_all(queue) == ""
    queue.finish(runs[5].job)
    assert start_all(queue) == "a" and queue.is_alone(a)


def test_no_run_starts_beside_one_that_is_alone() -> None:
    runs = estimates(1, 1, 1)
    queue = RunQueue(runs)
    assert [queue.start(), queue.start()] == runs[:2]
    queue.postpone(runs[0].job)
    queue.finish(runs[1].job)
    assert start_all(queue) == "c"
    queue.finish(runs[2].job)
    queue.waiting += estimates(1, 1, 1, 1)[3:]
    assert start_all(queue) == "a" and len(queue.waiting) == 1


def test_a_run_without_estimate_needs_no_memory() -> None:
    assert RunEstimate(planned(1)[0]).memory == 0.0 and RunQueue([]).memory == math.inf
