"""How far a measured figure may be from the true one, as far as the test set decides it.

A population of units is drawn again and again (`resampling`). Plain shares of right answers get Wilson's score interval
(Wilson 1927), with as many units as would have that variance if they were independent (Korn and Graubard 1998). All
other metrics get the BCa bootstrap (Efron 1987), its tails widened as Student's t is wider than the normal
distribution, since the plain one is too narrow for few speakers (Hesterberg 2015, arXiv 1411.5279, section 5.3). What
training adds is `training_spread`'s. Their coverage was simulated: `docs/intervals.md`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downstreams.metrics.scores import Score
from superb_eval.results.stats import resampling
from superb_eval.results.stats.resampling import NEW_SPEAKERS, NEW_UNITS, Population

LEVEL = 0.95
RESAMPLES = 2000
WILSON = "Wilson score interval"
EFFECTIVE_WILSON = f"Wilson score interval of effective units (resampling {resampling.VERSION})"
BOOTSTRAP = f"BCa bootstrap, tails widened by Student's t (resampling {resampling.VERSION})"

FEWEST = 8
"""Degrees of freedom below which too few different resamples exist for their percentiles to reach as far as Student's t
does: then the interval is Student's."""

BLOCKS = 200
"""To estimate skewness, units are left out in at most this many blocks; one by one would take hours for many trials."""

Draws = NDArray[np.float64]
"""[2, RESAMPLES]: a metric on each resample, then on resamples of pairs alone (constant where units have one side).

Means, differences and other functions of metrics are computed on both rows alike.
"""


def method(score: Score, of: Population = NEW_SPEAKERS) -> str:
    """Return which method `interval` uses for a score."""
    if not score.share:
        return BOOTSTRAP
    return WILSON if _independent(score, resampling.population(score, of)) else EFFECTIVE_WILSON


def interval(score: Score, of: Population = NEW_SPEAKERS, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a metric over a population (`resampling.population`), in its own unit.

    Where every unit of a resampled metric has the same outcome the interval has no width: that is a limit of the
    bootstrap, not certainty.
    """
    if score.units < 2:
        return wilson(score.value, 1.0) if score.share else (score.value, score.value)
    of = resampling.population(score, of)
    if score.share and _independent(score, of):
        return wilson(score.value, score.units)
    draws, df = distribution(score, of, seed), resampling.degrees_of_freedom(score, of)
    if score.share:
        return wilson(score.value, _effective_units(score, variance(draws)), df)
    return _ends(draws, df, _bias(draws, score.value), _acceleration(score, of))


def wilson(percent: float, units: float, df: float = math.inf) -> tuple[float, float]:
    """Return Wilson's interval, in percent, of a share of `units`; `df` is how well their variance is known."""
    share, z2 = percent / 100, reach(df) ** 2
    centre, scale = share + z2 / (2 * units), 1 + z2 / units
    half = math.sqrt(z2 * (share * (1 - share) / units + z2 / (4 * units**2)))
    # At a share of 0 or 1 an end is that share; rounding must not move it.
    low, high = 100 * (centre - half) / scale, 100 * (centre + half) / scale
    return max(0.0, min(low, percent)), min(100.0, max(high, percent))


def distribution(score: Score, of: Population = NEW_SPEAKERS, seed: int = 0) -> Draws:
    """Return a metric on resamples; the same seed draws the same units of every score with the same nesting."""
    of = resampling.population(score, of)
    rng = np.random.default_rng(seed)
    drawn = _evaluate(score, resampling.draw(score, of, RESAMPLES, rng))
    pairs = _evaluate(score, resampling.draw_pairs(score, of, RESAMPLES, rng))
    return np.stack([drawn, pairs if len(pairs) else np.full(RESAMPLES, score.value)])


def variance(draws: Draws) -> float:
    """Return the variance of a figure over its population: of its draws, less what pairs alone add too much.

    NaN where it is undefined on all resamples.
    """
    drawn, pairs = (float(np.var(row[~np.isnan(row)])) if not np.isnan(row).all() else math.nan for row in draws)
    # The part of each pair alone is in it once, and in `pairs` twice.
    return max(drawn - pairs, pairs / 2)


def percentiles(draws: Draws, df: float) -> tuple[float, float]:
    """Return the ends of a widened percentile interval: for differences and means, which need no bias correction."""
    return _ends(draws, df, 0.0, 0.0)


def reach(df: float) -> float:
    """Return how many standard errors an end of the interval is away: Student's t, normal where `df` is infinite."""
    special = _special()
    tail = (1 + LEVEL) / 2
    return float(special.stdtrit(df, tail) if math.isfinite(df) else special.ndtri(tail))


def tail(deviates: float, df: float) -> float:
    """Return the probability that a statistic with `df` degrees of freedom is above so many standard errors."""
    special = _special()
    return float(special.stdtr(df, -deviates) if math.isfinite(df) else special.ndtr(-deviates))


def _independent(score: Score, of: Population) -> bool:
    return of == NEW_UNITS and score.strata is None


def _evaluate(score: Score, weights: Any) -> NDArray[np.float64]:
    values: list[float] = []
    for some in weights:
        values += list(score.statistic(some)) if score.vectorised else [float(score.statistic(w)) for w in some]
    return np.array(values, dtype=np.float64)


def _effective_units(score: Score, variance: float) -> float:
    """As many independent units as would give a share that variance; all of them where every answer is right."""
    share = score.value / 100
    return share * (1 - share) * 1e4 / variance if variance > 0 and 0 < share < 1 else float(score.units)


def _ends(draws: Draws, df: float, bias: float, acceleration: float) -> tuple[float, float]:
    """The BCa interval's ends; without bias and acceleration, those of the percentile interval."""
    drawn = draws[0][~np.isnan(draws[0])]
    if not len(drawn):
        return math.nan, math.nan
    special, middle = _special(), float(np.median(drawn))
    spread = float(np.var(drawn))
    if df < FEWEST:
        middle, half = float(np.mean(drawn)), reach(df) * math.sqrt(variance(draws))
        return middle - half, middle + half
    scale = math.sqrt(variance(draws) / spread) if spread > 0 else 1.0
    tails = [
        100 * special.ndtr(bias + (bias + z) / max(1e-6, 1 - acceleration * (bias + z)))
        for z in (-reach(df), reach(df))
    ]
    low, high = middle + scale * (np.percentile(drawn, tails) - middle)
    return float(low), float(high)


def _bias(draws: Draws, value: float) -> float:
    """How far the metric lies from the middle of its draws, in normal deviates; equal draws count half."""
    drawn = draws[0][~np.isnan(draws[0])]
    if not len(drawn):
        return 0.0
    below = np.mean(drawn < value) + np.mean(drawn == value) / 2
    return float(_special().ndtri(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES)))


def _acceleration(score: Score, of: Population) -> float:
    """The skewness of the metric's influence, by leaving out blocks of what is drawn in turn."""
    weights = resampling.leave_out(score, of, BLOCKS)
    left = np.array([float(score.statistic(kept)) for kept in weights])
    if np.isnan(left).all():  # such as the equal error rate of a few trials
        return 0.0
    influence = np.nanmean(left) - left
    spread = np.nansum(influence**2) ** 1.5
    return float(np.nansum(influence**3) / (6 * spread)) if spread > 0 else 0.0


def _special() -> Any:  # scipy has no types
    """The distributions' bare functions: importing scipy.stats takes as long as all intervals of a table."""
    from scipy import special

    return special
