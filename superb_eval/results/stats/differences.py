"""Whether two figures of the same test units differ by more than chance: in the units, and in training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from superb_eval.results.stats import intervals, training_spread
from superb_eval.results.stats.intervals import Draws
from superb_eval.results.stats.training_spread import Variance

ALPHA = 0.05
"""The level of tests: of a family of differences, as of one."""

Key = TypeVar("Key")


@dataclass(frozen=True)
class Difference:
    """A figure less another of the same test units, with its 95 % interval; `over` names what was resampled.

    `p` is the probability of such a difference between equal systems, after `holm` that of any such in its family; None
    where nothing can be tested: no test units in common, or a training variance that is unknown.
    """

    value: float
    low: float
    high: float
    over: str
    p: float | None = None

    @property
    def tested(self) -> bool:
        """Whether something was resampled, and the interval has ends."""
        return bool(self.over) and math.isfinite(self.low + self.high)

    @property
    def distinguishable(self) -> bool:
        """Whether equal systems would differ so much in less than 5 % of cases."""
        return self.p is not None and self.p < ALPHA


def paired(value: float, draws: Draws, df: float, over: str, training: Variance | None) -> Difference:
    """Return our figure less theirs, `value`, resampled together: a hard test unit is hard for both.

    `draws` are of the difference; `training` is its variance between trainings, None where that is unknown: then the
    interval is over test units alone, and nothing is tested.
    """
    low, high = intervals.percentiles(draws, df)
    if training is None:
        return Difference(value, low, high, over)
    low, high = training_spread.widen(value, (low, high), training)
    known = Variance.total([Variance(intervals.variance(draws), df), training])
    # Where draws are skewed an interval's end may be near; then the standard error alone is the stricter test.
    distances = (value - low if value > 0 else high - value), intervals.reach(known.df) * math.sqrt(known.value)
    return Difference(value, low, high, over, max(_p(value, distance, known.df) for distance in distances))


def paired_folds(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Return the mean difference over folds with Student's interval: for folds with different speakers each.

    Both are [folds], in the same order, two at least. Each fold has its own training, whose variance is in it.
    """
    differences = np.subtract(ours, theirs)
    count = len(differences)
    half = intervals.reach(count - 1) * float(differences.std(ddof=1)) / math.sqrt(count)
    value = float(differences.mean())
    return Difference(value, value - half, value + half, f"{count} folds", _p(value, half, count - 1))


def unpaired(ours: float, theirs: float) -> Difference:
    """Return a difference without an interval: there are no predictions to resample."""
    return Difference(ours - theirs, math.nan, math.nan, "")


def holm(differences: Mapping[Key, Difference]) -> dict[Key, Difference]:
    """Return a family of differences with p adjusted, so that the chance of any false one is at most 5 % (Holm 1979).

    Differences without p are no tests, and are left as they are.
    """
    adjusted = dict(differences)
    ordered = sorted(_tests(differences), key=lambda test: test[1])
    least = 0.0
    for rank, (key, p) in enumerate(ordered):
        least = max(least, min(1.0, (len(ordered) - rank) * p))
        adjusted[key] = replace(differences[key], p=least)
    return adjusted


def _tests(differences: Mapping[Key, Difference]) -> Iterable[tuple[Key, float]]:
    return [(key, d.p) for key, d in differences.items() if d.p is not None]


def _p(value: float, distance: float, df: float) -> float:
    """The level at which the interval, whose end towards zero is `distance` away, would just touch zero."""
    if value == 0 or math.isnan(distance):
        return 1.0
    if distance <= 0:
        return 0.0
    return 2 * intervals.tail(abs(value) / distance * intervals.reach(df), df)
