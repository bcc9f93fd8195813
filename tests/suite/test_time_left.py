"""The time left of a suite, replayed from a recorded one: whatever the plan's estimates are worth, it is soon true.

`recorded_quickstart.json` holds runs of the quickstart on two cores: `runs` as they were estimated (upstream, task,
seconds of extraction and of training, folds, and the run whose features they read), `events` with the seconds since its
start (of the first 47 s, from the runs' records). The last seven of its forty runs are left out: other programs took
half of the processor by then.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from superb_eval.suite import progress_view, time_left
from superb_eval.suite.events import (
    FEATURES_STEP,
    Event,
    Failed,
    Finished,
    JobProgress,
    OutOfMemory,
    Started,
    SuiteOutcome,
)
from superb_eval.suite.jobs import Job, SuiteConfig
from superb_eval.suite.plan import Plan
from superb_eval.suite.progress_view import ProgressView
from superb_eval.suite.schedule import RunEstimate
from superb_eval.suite.time_left import Corrections, Measurement, TimeLeft

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("recorded_quickstart.json").read_text())

FACTOR, BEGINNING, END = 1.5, 0.1, 0.03
"""From a tenth of the time on, estimates are within the factor, or wrong by so little of the whole time: the end."""


def job_of(upstream: str, task: str) -> Job:
    return Job(upstream, task, None, "mini", (), 0, Path("out"), "cpu", None, None)


def runs_of(scale: float = 1.0) -> list[RunEstimate]:
    """The plan's estimates, multiplied by `scale`."""
    jobs = [job_of(upstream, task) for upstream, task, *_ in RECORDED["runs"]]
    return [
        RunEstimate(
            job, scale * extraction, scale * training, after=None if after is None else jobs[after], folds=folds
        )
        for job, (_, _, extraction, training, folds, after) in zip(jobs, RECORDED["runs"], strict=True)
    ]


def recorded_events() -> list[tuple[float, Event]]:
    jobs = [run.job for run in runs_of()]
    return [(now, _event(jobs[k], step, *numbers)) for now, k, step, *numbers in RECORDED["events"]]


def _event(job: Job, step: str, *numbers: int) -> Event:
    if step == "started":
        return Started(job)
    return Finished(job, "", "", 0.0) if step == "finished" else JobProgress(job, step, *numbers)


class Replay:
    """A replay of events by a stand-in clock: `left` has (time, true seconds left, estimated ones) at each event."""

    def __init__(self, runs: Sequence[RunEstimate], events: Sequence[tuple[float, Event]]) -> None:
        self.now = events[0][0]
        self.estimate = TimeLeft(runs, 2, now=lambda: self.now)
        self.end = events[-1][0]
        self.left = list(self._play(events))

    def _play(self, events: Sequence[tuple[float, Event]]) -> Iterator[tuple[float, float, float]]:
        for self.now, event in events:
            self.estimate.handle(event)
            seconds = self.estimate.seconds()
            assert seconds is not None
            yield self.now, self.end - self.now, seconds

    def wrong(self) -> list[tuple[float, float, float]]:
        """Where, after the beginning, an estimate is beyond the bound."""
        start = self.left[0][0]
        whole = self.end - start
        return [
            (now, true, estimated)
            for now, true, estimated in self.left
            if now - start >= BEGINNING * whole
            and abs(estimated - true) > END * whole
            and abs(math.log(estimated / true)) > math.log(FACTOR)
        ]


@pytest.mark.parametrize("scale", [1.0, 3.0, 1 / 3])
def test_the_time_left_of_a_recorded_suite_is_true_within_the_bound(scale: float) -> None:
    replay = Replay(runs_of(scale), recorded_events())
    assert not replay.wrong() and len(replay.left) > 200


def test_without_estimates_the_runs_that_are_done_stand_for_the_others() -> None:
    """Nothing is timed where a suite is submitted to other machines. Runs differ, and the longest come first here."""
    replay_events = recorded_events()
    estimate = TimeLeft(runs_of(0.0), 2, now=lambda: now)
    now, end, unknown = 0.0, replay_events[-1][0], 0
    for now, event in replay_events:
        estimate.handle(event)
        seconds = estimate.seconds()
        unknown += seconds is None
        if 0.2 * end < now < 0.8 * end:
            assert seconds is not None and abs(math.log(seconds / (end - now))) < math.log(2.5)
    assert unknown, "nothing is estimated before any run has gone a part of its way"


@pytest.mark.parametrize("scale", [1.0, 3.0, 1 / 3])
@pytest.mark.parametrize("stopped", [130.0, 300.0, 440.0])
def test_a_resumed_suite_is_estimated_as_well(scale: float, stopped: float) -> None:
    """Finished runs are left out, current ones continue from where they were."""
    events = recorded_events()
    over = {event.job for now, event in events if now <= stopped and isinstance(event, Finished)}
    replay = Replay(
        [run for run in runs_of(scale) if run.job not in over],
        [*_continued(events, stopped, over), *((now, event) for now, event in events if now > stopped)],
    )
    assert not replay.wrong()


def _continued(events: Sequence[tuple[float, Event]], stopped: float, over: set[Job]) -> Iterator[tuple[float, Event]]:
    """Yield the first events of the runs that were interrupted: their stored features, and each training as far as it
    was; it passes through those of earlier folds."""
    before = [event for now, event in events if now <= stopped and event.job not in over]
    for job in dict.fromkeys(event.job for event in before):
        yield stopped, Started(job)
        steps = {event.step: event for event in before if event.job == job and isinstance(event, JobProgress)}
        *earlier, last = steps.values()
        yield from ((stopped, replace(event, done=event.total)) for event in earlier)
        yield stopped, last


def test_the_finishing_time_never_jumps() -> None:
    """From one event to the next, it moves by less than a tenth of the whole time."""
    replay = Replay(runs_of(), recorded_events())
    ends = [now + estimated for now, _, estimated in replay.left if now > BEGINNING * replay.end]
    assert max(abs(later - earlier) for earlier, later in itertools.pairwise(ends)) < 0.1 * replay.end


def test_time_that_passes_without_events_is_counted_down() -> None:
    now = 0.0
    estimate = TimeLeft([RunEstimate(job_of("a", "ks"), 10.0, 50.0)], 1, now=lambda: now)
    estimate.handle(Started(job_of("a", "ks")))
    assert estimate.seconds() == pytest.approx(60)
    now = 5.0
    assert estimate.seconds() == pytest.approx(55)
    now = 200.0
    left = estimate.seconds()
    assert left is not None and left > 50, "late: the training is still to come"


def test_the_start_of_a_process_counts_until_its_first_features() -> None:
    now, job = 0.0, job_of("a", "ks")
    estimate = TimeLeft([RunEstimate(job, 10.0, 50.0, start=8.0)], 1, now=lambda: now)
    assert estimate.seconds() == pytest.approx(68)
    estimate.handle(Started(job))
    now = 5.0
    assert estimate.seconds() == pytest.approx(63)
    estimate.handle(JobProgress(job, FEATURES_STEP, 0, 4))
    now = 6.0
    assert estimate.seconds() == pytest.approx(59)


def test_a_suite_for_another_machine_has_a_time_left_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its plan has no estimates at all; the mean of what is over stands for the others."""
    first, second = job_of("a", "ks"), job_of("b", "ks")
    plan = Plan(SuiteConfig(("a", "b"), ("ks",), out=tmp_path), missing=[first, second])
    with progress_view.of_plan(plan, 1)(SuiteOutcome(), 2) as handle:
        for event in (Started(first), JobProgress(first, FEATURES_STEP, 4, 4), Finished(first, "", "ACC 1.00", 1.0)):
            handle(event)
    assert "1 of 2 runs done, about 0 s left, until" in capsys.readouterr().err


def test_a_view_may_be_drawn_while_events_are_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich draws it from a thread of its own: an event waits until the runs that it would change are simulated."""
    first, second = job_of("a", "ks"), job_of("b", "ks")
    estimate = TimeLeft([RunEstimate(first, 1.0, 1.0), RunEstimate(second, 1.0, 1.0)], 2, now=lambda: 0.0)
    estimate.handle(Started(first))
    with ThreadPoolExecutor(1) as pool:

        def interrupted(runs: Iterator[RunEstimate], workers: int, memory: float) -> float:
            next(runs)
            assert wait([pool.submit(estimate.handle, Started(second))], timeout=0.1).not_done
            return sum(run.seconds for run in runs)

        monkeypatch.setattr(time_left, "simulate", interrupted)
        assert estimate.seconds() == pytest.approx(2)
    monkeypatch.undo()
    assert estimate.seconds() == pytest.approx(2), "both runs are current"


def test_folds_are_parts_of_one_training() -> None:
    job, now = job_of("a", "er"), 0.0
    estimate = TimeLeft([RunEstimate(job, 0.0, 1000.0, folds=5)], 1, now=lambda: now)
    estimate.handle(Started(job))
    estimate.handle(JobProgress(job, FEATURES_STEP, 4, 4))
    for fold in range(1, 4):
        for done in (0, 100):
            now += 5.0 if done else 0.0
            estimate.handle(JobProgress(job, f"training, fold {fold}, lr 1", done, 100))
    left = estimate.seconds()
    assert left is not None and left == pytest.approx(10.0, abs=60.0) and left < 130, "three of five took 15 s"


def test_a_run_that_waits_or_failed_is_not_current() -> None:
    first, second = job_of("a", "ks"), job_of("b", "ks")
    estimate = TimeLeft([RunEstimate(first, 0.0, 60.0), RunEstimate(second, 0.0, 60.0)], 2, now=lambda: 0.0)
    estimate.handle(Started(first))
    estimate.handle(OutOfMemory(first, "memory ran out"))
    estimate.handle(Failed(second, "no", fixable=True))
    estimate.handle(Started(job_of("c", "ks")))  # of another suite
    assert estimate.seconds() == pytest.approx(60)


def test_ratios_are_of_what_broader_ones_leave_unexplained() -> None:
    """All work takes twice as long as estimated, that of one upstream four times: its own ratio is two."""
    measured = [Measurement("training", name, task, 100.0, 200.0) for name in "abcd" for task in ("ks", "pr")]
    corrections = Corrections([*measured, *(Measurement("training", "e", "ks", 100.0, 400.0),) * 4], 1.0)
    assert corrections.factor("training", "a", "pr") == pytest.approx(2.0, rel=0.2)
    assert corrections.factor("training", "e", "ks") == pytest.approx(4.0, rel=0.2)
    assert 2.0 < corrections.factor("extraction", "a", "ks") < 4.0, "the ratio of all work, where nothing else is known"
    assert Corrections([], 1.0).factor("training", "a", "ks") == 1.0


def test_one_line_has_the_time_left_and_the_finishing_time() -> None:
    job = job_of("a", "ks")
    view = ProgressView(2, SuiteOutcome(), TimeLeft([RunEstimate(job, 0.0, 600.0)], 1))
    assert view.summary().startswith("0 of 2 runs done, about 10 min left, until ")
