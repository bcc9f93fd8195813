"""How far a measured figure may be from the true one, and whether two figures differ by more than chance.

Plain shares of right answers get Wilson's score interval (Wilson 1927). All other metrics are resampled: the BCa
bootstrap (Efron 1987), its tails widened as Student's t is wider than the normal distribution, since the plain one is
too narrow for few units (Hesterberg 2015, arXiv 1411.5279, section 5.3). Their coverage was simulated:
`results/README.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from downstreams.metrics.scores import Score

LEVEL = 0.95
RESAMPLES = 2000
WILSON = "Wilson score interval"
BOOTSTRAP = "BCa bootstrap over test units, tails widened by Student's t"

BLOCKS = 200
"""To estimate skewness, units are left out in at most this many blocks; one by one would take hours for many trials."""

_INDICES_AT_ONCE = 4_000_000
"""Indices drawn at once, which bounds memory at about 100 MB."""

Draws = NDArray[np.float64]
"""[RESAMPLES]: a metric on each resample of its units."""


class Difference(NamedTuple):
    """A figure less another of the same test units, with its 95 % interval; `over` names what was resampled."""

    value: float
    low: float
    high: float
    over: str

    @property
    def tested(self) -> bool:
        """Whether the difference was tested against chance: something was resampled, and the interval has ends."""
        return bool(self.over) and math.isfinite(self.low + self.high)

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes zero; one without ends excludes nothing."""
        return bool(self.low > 0 or self.high < 0)


def method(score: Score) -> str:
    """Return which method `interval` uses for a score."""
    return WILSON if score.share else BOOTSTRAP


def interval(score: Score, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a metric, in its own unit.

    Utterances of one speaker are not independent, so the interval is for new utterances of these speakers. Where
    every unit of a resampled metric has the same outcome the interval has no width: that is a limit of the bootstrap,
    not certainty.
    """
    if score.share:
        return wilson(score.value, score.units)
    if score.units < 2:
        return score.value, score.value
    draws = distribution(score, seed)
    return _ends(draws, score.units, _bias(draws, score.value), _acceleration(score))


def wilson(percent: float, units: int) -> tuple[float, float]:
    """Return Wilson's interval, in percent, of a share of `units`."""
    share, z2 = percent / 100, float(_special().ndtri((1 + LEVEL) / 2)) ** 2
    centre, scale = share + z2 / (2 * units), 1 + z2 / units
    half = math.sqrt(z2 * (share * (1 - share) / units + z2 / (4 * units**2)))
    # At a share of 0 or 1 an end is that share; rounding must not move it.
    low, high = 100 * (centre - half) / scale, 100 * (centre + half) / scale
    return max(0.0, min(low, percent)), min(100.0, max(high, percent))


def distribution(score: Score, seed: int = 0) -> Draws:
    """Return a metric on resamples of its units; the same seed draws the same units of every score with as many."""
    rng = np.random.default_rng(seed)
    values: list[float] = []
    while len(values) < RESAMPLES:
        count = min(RESAMPLES - len(values), max(1, _INDICES_AT_ONCE // score.units))
        chosen = _draw(score, count, rng)
        values += list(score.statistic(chosen)) if score.vectorised else [float(score.statistic(c)) for c in chosen]
    return np.array(values, dtype=np.float64)


def percentiles(draws: Draws, units: int) -> tuple[float, float]:
    """Return the ends of a widened percentile interval: for differences and means, which need no bias correction."""
    return _ends(draws, units, 0.0, 0.0)


def paired(value: float, ours: Draws, theirs: Draws, units: int, over: str) -> Difference:
    """Return our figure less theirs, `value`, resampled together: a hard test unit is hard for both.

    Both `distribution`s are over the same units, in the same order.
    """
    low, high = percentiles(ours - theirs, units)
    return Difference(value, low, high, f"{units} {over}")


def paired_folds(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Return the mean difference over folds with Student's interval: for folds with different speakers each.

    Both are [folds], in the same order, two at least.
    """
    differences = np.subtract(ours, theirs)
    count = len(differences)
    half = float(_special().stdtrit(count - 1, (1 + LEVEL) / 2) * differences.std(ddof=1)) / math.sqrt(count)
    value = float(differences.mean())
    return Difference(value, value - half, value + half, f"{count} folds")


def _draw(score: Score, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return `count` resamples [count, units] of the units' indices, each stratum within itself."""
    if score.strata is None:
        return rng.integers(0, score.units, size=(count, score.units))
    chosen = np.empty((count, score.units), dtype=np.intp)
    for stratum in np.unique(score.strata):
        (members,) = np.nonzero(score.strata == stratum)
        chosen[:, members] = members[rng.integers(0, len(members), size=(count, len(members)))]
    return chosen


def _ends(draws: Draws, units: int, bias: float, acceleration: float) -> tuple[float, float]:
    """The BCa interval's ends; without bias and acceleration, those of the percentile interval."""
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        return math.nan, math.nan
    special = _special()
    reach = special.stdtrit(max(1, units - 1), (1 + LEVEL) / 2) * math.sqrt(units / max(1, units - 1))
    tails = [100 * special.ndtr(bias + (bias + z) / max(1e-6, 1 - acceleration * (bias + z))) for z in (-reach, reach)]
    low, high = np.percentile(defined, tails)
    return float(low), float(high)


def _bias(draws: Draws, value: float) -> float:
    """How far the metric lies from the middle of its draws, in normal deviates; equal draws count half."""
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        return 0.0
    below = np.mean(defined < value) + np.mean(defined == value) / 2
    return float(_special().ndtri(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES)))


def _acceleration(score: Score) -> float:
    """The skewness of the metric's influence, by leaving out blocks of units in turn."""
    blocks = np.array_split(np.random.default_rng(0).permutation(score.units), min(BLOCKS, score.units))
    units = np.arange(score.units)
    left = np.array([float(score.statistic(np.delete(units, block))) for block in blocks])
    influence = np.nanmean(left) - left
    spread = np.nansum(influence**2) ** 1.5
    return float(np.nansum(influence**3) / (6 * spread)) if spread > 0 else 0.0


def _special() -> Any:  # scipy has no types
    """The distributions' bare functions: importing scipy.stats takes as long as all intervals of a table."""
    from scipy import special

    return special
