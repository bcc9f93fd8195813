"""How far a measured figure may be from the true one: bootstrap intervals over utterances."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from downstreams.base import Score

LEVEL = 0.95
RESAMPLES = 2000
METHOD = "percentile bootstrap over utterances"


def interval(score: Score, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a metric, in its own unit, by resampling utterances with replacement.

    Utterances of one speaker are not independent, so the interval is for new utterances of these speakers. Where
    every utterance has the same outcome the interval has no width: that is a limit of the bootstrap, not certainty.
    """
    from scipy.stats import bootstrap

    if len(score.numerators) < 2 or _constant(score):
        return score.value, score.value
    result = bootstrap(
        (score.numerators, score.denominators),
        lambda n, d, axis: score.scale * n.sum(axis=axis) / d.sum(axis=axis),
        paired=True,
        vectorized=True,
        confidence_level=LEVEL,
        n_resamples=RESAMPLES,
        method="percentile",
        batch=max(1, 4_000_000 // len(score.numerators)),  # bounds memory at some 100 MB
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _constant(score: Score) -> bool:
    ratios: NDArray[np.float64] = score.numerators / score.denominators
    return bool((ratios == ratios[0]).all())
