"""The equal error rate of a list of trials, as the ASV protocol computes it.

The receiver operating characteristic is drawn through every distinct score, with straight lines between; the equal
error rate is where false alarms and misses are as frequent (s3prl `downstream/sv_voxceleb1/utils.py:EER`, with
scikit-learn and a root finder). Here the crossing is computed in closed form from sorted scores, so that an interval
can compute it thousands of times.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from downstreams.metrics.scores import Metric, Score


def equal_error_rate(targets: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Return the equal error rate in percent; `targets` and `scores` are [trials], high scores mean "one speaker".

    NaN where there are no target trials, or no non-target ones, or a score isn't finite.
    """
    if not np.isfinite(scores).all():
        return math.nan
    order, ends = _sort_by_score(scores)
    return _crossing(targets[order].astype(np.float64), (~targets[order]).astype(np.float64), ends)


def score(metric: Metric, targets: NDArray[np.bool_], scores: NDArray[np.float64]) -> Score:
    """Return the equal error rate as a score over trials, which an interval resamples; NaN if a score isn't finite."""
    if not np.isfinite(scores).all():  # a sort would put NaN anywhere, and find 0 or 50 % there
        return Score(metric, len(scores), lambda weights: np.asarray(math.nan), vectorised=False)
    order, ends = _sort_by_score(scores)
    target = targets[order]

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        times = weights[order]  # nothing is sorted again
        return np.asarray(_crossing(times * target, times * ~target, ends))

    return Score(metric, len(scores), statistic, vectorised=False)


def _sort_by_score(scores: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return trials from the highest score to the lowest, and the place of the last trial of each distinct score."""
    order = np.argsort(-scores, kind="stable")
    return order, np.append(np.nonzero(np.diff(scores[order]))[0], len(scores) - 1)


def _crossing(targets: NDArray[np.float64], nontargets: NDArray[np.float64], ends: NDArray[np.intp]) -> float:
    """Return where false alarms equal misses, in percent, given each trial's weight as a target or as a non-target."""
    if not (targets.any() and nontargets.any()):
        return math.nan
    hits = np.append(0.0, np.cumsum(targets)[ends] / targets.sum())
    alarms = np.append(0.0, np.cumsum(nontargets)[ends] / nontargets.sum())
    # Misses less false alarms: falls from 1 to -1 on the way from the strictest threshold to the laxest.
    balance = 1.0 - hits - alarms
    after = int(np.argmax(balance <= 0))
    before = after - 1
    share = balance[before] / (balance[before] - balance[after])
    return float(100.0 * (alarms[before] + share * (alarms[after] - alarms[before])))
