"""Which run starts next beside those that run: by order, shared features and memory; and what that makes of durations.

The executor of this machine asks `RunQueue` in real time, `simulate` in estimated time, so that a plan prints what the
suite does.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from superb_eval.suite.jobs import Job

START_SECONDS = 8.0
"""From the start of a worker process to its first features, and to import what its first update needs (two cores)."""


@dataclass(frozen=True)
class RunEstimate:
    """What a run takes, estimated: seconds to extract features, seconds to train and test, bytes of memory.

    `after` is the run that extracts the features which this one only reads; with `together` it trains this one too
    (seeds with one `train.order_seed`), which then takes no seconds of its own. Its training is in `folds` of equal
    length. Where its process is still to start, that takes `start` seconds.
    """

    job: Job
    extraction: float = 0.0
    training: float = 0.0
    memory: float = 0.0
    after: Job | None = None
    together: bool = False
    folds: int = 1
    start: float = 0.0

    @property
    def seconds(self) -> float:
        """The start of its process, extraction, training and test."""
        return self.start + self.extraction + self.training


class RunQueue:
    """Runs that wait, in order, and those that run, within `memory` bytes.

    A run that ran out of memory beside others waits until one of them has finished, starts beside half as many at most,
    and at last alone.
    """

    def __init__(self, runs: Iterable[RunEstimate], memory: float = math.inf) -> None:
        self.waiting, self.memory = list(runs), memory
        self.running: dict[Job, RunEstimate] = {}
        self._extracting: set[Job] = set()
        self._neighbours: dict[Job, int] = {}

    def start(self) -> RunEstimate | None:
        """Return the next run that may start now, which runs from here on; None where none may."""
        run = next(filter(self._may_start, self.waiting), None)
        if run is not None:
            self.waiting.remove(run)
            self.running[run.job] = run
            self._extracting.add(run.job)
        return run

    def is_alone(self, job: Job) -> bool:
        """Return whether a run has no neighbours as long as it runs."""
        return self._neighbours.get(job) == 0

    def features_stored(self, job: Job) -> None:
        """Let those runs start that read the features of this one."""
        self._extracting.discard(job)

    def finish(self, job: Job) -> None:
        """Remove a run that is over, whether it finished or failed."""
        self.running.pop(job, None)
        self._extracting.discard(job)

    def postpone(self, job: Job) -> None:
        """Let a run wait that ran out of memory beside others."""
        self._neighbours[job] = (len(self.running) - 1) // 2
        self.waiting.append(self.running[job])
        self.finish(job)

    def _may_start(self, run: RunEstimate) -> bool:
        runs = [*self.running.values(), run]
        return not self._waits_for_features(run) and (
            len(runs) == 1
            or (
                sum(each.memory for each in runs) <= self.memory
                and all(len(runs) - 1 <= self._neighbours.get(each.job, math.inf) for each in runs)
            )
        )

    def _waits_for_features(self, run: RunEstimate) -> bool:
        unfinished = self.running if run.together else self._extracting
        return run.after in unfinished or any(run.after == other.job for other in self.waiting)


def simulate(runs: Iterable[RunEstimate], workers: int, memory: float = math.inf) -> float:
    """Return the seconds until the last of the runs is over, `workers` at a time, as if none slowed another."""
    queue, now = RunQueue(runs, memory), 0.0
    ends: list[tuple[float, int, bool, RunEstimate]] = []
    numbers = itertools.count()  # orders what ends at the same time
    while queue.waiting or ends:
        while len(queue.running) < workers and (run := queue.start()):
            heapq.heappush(ends, (now + run.start + run.extraction, next(numbers), False, run))
            heapq.heappush(ends, (now + run.seconds, next(numbers), True, run))
        now, _, over, run = heapq.heappop(ends)
        (queue.finish if over else queue.features_stored)(run.job)
    return now


def arrange(runs: Sequence[RunEstimate], workers: int, memory: float = math.inf) -> list[RunEstimate]:
    """Return runs in the order that takes less time: as they are, or longest first.

    A run counts with the longest of those that wait for its features.
    """
    following: dict[Job, float] = {}
    for run in runs:
        if run.after is not None:
            following[run.after] = max(following.get(run.after, 0.0), run.seconds)
    longest_first = sorted(runs, key=lambda run: -(run.extraction + max(run.training, following.get(run.job, 0.0))))
    orders = (list(runs), longest_first)
    return min(orders, key=lambda order: simulate(order, workers, memory))
