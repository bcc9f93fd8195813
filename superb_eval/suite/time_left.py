"""Estimates the time left of a running suite: its remaining runs are simulated, as its plan is, by corrected estimates.

What is measured corrects what was estimated: by the ratio of measured to estimated seconds of all work so far, of
extraction and of training, of each upstream, and of each task. A ratio with little work behind it counts little.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal, NamedTuple

from superb_eval.suite.events import FEATURES_STEP, Event, Failed, Finished, JobProgress, Started
from superb_eval.suite.jobs import Job
from superb_eval.suite.schedule import RunEstimate, simulate

Phase = Literal["extraction", "training"]

ESTIMATE_WEIGHT = 0.25
"""A ratio counts half once as much work is behind it as this share of an average run."""

PHASE_WEIGHT = 0.1
"""The pace of a phase of a current run counts half once this share of it is done."""

LATE = 0.1
"""What should be over takes this share of its delay longer."""

REFRESH_SECONDS = 1.0
"""Seconds for which an estimate is counted down before the runs are simulated again."""


class Measurement(NamedTuple):
    """The estimated and the measured seconds of a piece of work: a phase of a run, or the part of it that is done."""

    phase: Phase
    upstream: str
    task: str
    estimated: float
    measured: float


class Corrections:
    """The factors by which estimates are multiplied.

    A factor is a product of ratios, from that of all work to those of an upstream and a task; each is of what the
    broader ones leave unexplained, and drawn to 1 as if `weight` seconds had been measured as they were estimated. Work
    that was estimated to take no time counts nothing.
    """

    def __init__(self, measurements: Sequence[Measurement], weight: float) -> None:
        self._ratios: dict[tuple[str, ...], float] = {}
        for level in range(4):
            seconds: dict[tuple[str, ...], tuple[float, float]] = {}
            for each in (each for each in measurements if each.estimated > 0):
                key = _keys(each.phase, each.upstream, each.task)[level]
                expected, measured = seconds.get(key, (weight, weight))
                factor = self.factor(each.phase, each.upstream, each.task)
                seconds[key] = expected + each.estimated * factor, measured + each.measured
            self._ratios |= {key: measured / expected for key, (expected, measured) in seconds.items()}

    def factor(self, phase: Phase, upstream: str, task: str) -> float:
        """Return the factor of a phase of a run."""
        return math.prod(self._ratios.get(key, 1.0) for key in _keys(phase, upstream, task))

    def corrected(self, run: RunEstimate) -> RunEstimate:
        """Return what a run that waits takes."""
        kind = run.job.upstream, run.job.task
        extraction, training = self.factor("extraction", *kind), self.factor("training", *kind)
        return replace(run, extraction=run.extraction * extraction, training=run.training * training)


def _keys(phase: Phase, upstream: str, task: str) -> tuple[tuple[str, ...], ...]:
    """Return what work is part of, the broadest first."""
    return (), (phase,), (phase, "upstream", upstream), (phase, "task", task)


@dataclass
class _CurrentPhase:
    """The phase that a current run is in: since when, which share of it is done, by when, and what was done before.

    A training in folds is one step after the other: `steps` are those that have begun.
    """

    run: RunEstimate
    phase: Phase
    since: float
    at: float
    share: float = 0.0
    before: float = 0.0
    steps: tuple[str, ...] = ()

    @property
    def estimated(self) -> float:
        """The seconds that the plan estimates for the whole phase."""
        return self.run.extraction if self.phase == "extraction" else self.run.training

    def update(self, progress: JobProgress, now: float) -> None:
        """Take account of the progress of the phase's step, or of one of its steps."""
        folds = self.run.folds if self.phase == "training" else 1
        part = progress.done / progress.total / folds if progress.total else 0.0
        if progress.step not in self.steps:
            self.steps += (progress.step,)
            self.before += part
            self.since = now if len(self.steps) == 1 else self.since
        self.share, self.at = min(1.0, (len(self.steps) - 1) / folds + part), now

    def measurement(self, share: float, now: float) -> Measurement:
        """Return what the phase has taken until now, with this share of it done."""
        job, done = self.run.job, max(0.0, share - self.before)
        return Measurement(self.phase, job.upstream, job.task, self.estimated * done, now - self.since)

    def seconds_left(self, factor: float, now: float) -> float:
        """Return how long the phase still takes: by its own pace, and by its estimate times `factor`."""
        done, measured = self.share - self.before, self.at - self.since
        whole = (measured + PHASE_WEIGHT * self.estimated * factor) / (done + PHASE_WEIGHT)
        start, late = 0.0 if self.steps else self.run.start, now - self.at
        return max(start + whole * (1 - self.share) - late, LATE * late)


class TimeLeft:
    """The time left of the suite of `runs`, `workers` at a time, within `memory` bytes. It handles the suite's events.

    Where the plan could estimate nothing, as for another machine, all runs are taken to be alike.
    """

    def __init__(
        self,
        runs: Iterable[RunEstimate],
        workers: int,
        memory: float = math.inf,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        remaining, self.workers, self.memory, self.now = list(runs), workers, memory, now
        self._estimated = any(run.extraction + run.training for run in remaining)
        if not self._estimated:
            remaining = [replace(run, training=1.0) for run in remaining]
        self._remaining = {run.job: run for run in remaining}
        self._current: dict[Job, _CurrentPhase] = {}
        self._measurements: list[Measurement] = []
        self._weight = ESTIMATE_WEIGHT * fmean(run.seconds for run in remaining) if remaining else 0.0
        self._simulated = (-math.inf, 0.0)
        self._lock = threading.Lock()
        """Held while an event is handled or runs are simulated: a view is drawn by another thread."""

    def handle(self, event: Event) -> None:
        """Take account of an event."""
        with self._lock:
            self._handle(event)

    def _handle(self, event: Event) -> None:
        now, job = self.now(), event.job
        if job not in self._remaining:
            return
        if isinstance(event, JobProgress):
            self._update(event, now)
            return
        self._simulated = (-math.inf, 0.0)
        if isinstance(event, Started):
            self._current[job] = _CurrentPhase(self._remaining[job], "extraction", now, now)
            return
        current = self._current.pop(job, None)  # it is over, or waits for another attempt
        if isinstance(event, Finished) and current is not None and current.phase == "training":
            self._measurements.append(current.measurement(1.0, now))
        if isinstance(event, Finished | Failed):
            del self._remaining[job]

    def _update(self, progress: JobProgress, now: float) -> None:
        run = self._remaining[progress.job]
        current = self._current.setdefault(progress.job, _CurrentPhase(run, "extraction", now, now))
        if (current.phase == "extraction") != (progress.step == FEATURES_STEP):
            return  # the corpus is read before, and what is done is reported twice
        current.update(progress, now)
        if progress.features_stored:
            self._measurements.append(current.measurement(1.0, now))
            self._current[progress.job] = _CurrentPhase(run, "training", now, now)

    def seconds(self) -> float | None:
        """Return an estimate of the seconds left; None as long as nothing is known."""
        with self._lock:
            now = self.now()
            at, left = self._simulated
            if now - at >= REFRESH_SECONDS:
                at, left = self._simulated = now, self._simulate(now)
            return max(0.0, left - (now - at)) if self._estimated or self._measurements else None

    def _simulate(self, now: float) -> float:
        current = [each.measurement(each.share, each.at) for each in self._current.values() if each.share > each.before]
        corrections = Corrections([*self._measurements, *current], self._weight)
        return simulate(self._runs_left(corrections, now), self.workers, self.memory)

    def _runs_left(self, corrections: Corrections, now: float) -> Iterator[RunEstimate]:
        """Yield what is left of each run, the current ones first."""
        for job, current in self._current.items():
            whole = replace(corrections.corrected(current.run), start=0.0)
            left = current.seconds_left(corrections.factor(current.phase, job.upstream, job.task), now)
            if current.phase == "extraction":
                yield replace(whole, extraction=left, after=None)
            else:
                yield replace(whole, extraction=0.0, training=left, after=None)
        yield from (corrections.corrected(run) for job, run in self._remaining.items() if job not in self._current)
