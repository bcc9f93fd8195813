"""How far a measured figure may be from the true one: bootstrap intervals over the units of a score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from downstreams.scores import Score

LEVEL = 0.95
RESAMPLES = 2000
METHOD = "percentile bootstrap over test units"

_AT_ONCE = 4_000_000
"""Indices drawn at once; bounds memory at some 100 MB."""


def interval(score: Score, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a metric, in its own unit, by resampling its units with replacement.

    Utterances of one speaker are not independent, so the interval is for new utterances of these speakers. Where
    every unit has the same outcome the interval has no width: that is a limit of the bootstrap, not certainty.
    """
    if score.units < 2:
        return score.value, score.value
    rng = np.random.default_rng(seed)
    values: list[float] = []
    while len(values) < RESAMPLES:
        count = min(RESAMPLES - len(values), max(1, _AT_ONCE // score.units))
        chosen = _draw(score, count, rng)
        values += list(score.statistic(chosen)) if score.vectorised else [float(score.statistic(c)) for c in chosen]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _draw(score: Score, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return `count` resamples [count, units] of the units' indices, each stratum within itself."""
    if score.strata is None:
        return rng.integers(0, score.units, size=(count, score.units))
    chosen = np.empty((count, score.units), dtype=np.intp)
    for stratum in np.unique(score.strata):
        (members,) = np.nonzero(score.strata == stratum)
        chosen[:, members] = members[rng.integers(0, len(members), size=(count, len(members)))]
    return chosen
