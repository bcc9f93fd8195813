"""The equal error rate of a list of trials, as the ASV protocol computes it.

The receiver operating characteristic is drawn through every distinct score, with straight lines between; the equal
error rate is where false alarms and misses are as frequent (s3prl `downstream/sv_voxceleb1/utils.py:EER`, with
scikit-learn and a root finder). Here the crossing is found by bisection between sorted scores and computed in closed
form, so that an interval can compute it thousands of times.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from downstreams.metrics.scores import Metric, Score


@dataclass(frozen=True)
class _SortedTrials:
    """Trials from the highest score to the lowest, those of one speaker and those of two apart.

    `targets` and `nontargets` are indices of trials. `targets_above` and `nontargets_above` [thresholds] count those
    that each threshold accepts: first none, then as far as each distinct score.
    """

    targets: NDArray[np.intp]
    nontargets: NDArray[np.intp]
    targets_above: NDArray[np.intp]
    nontargets_above: NDArray[np.intp]

    @classmethod
    def of(cls, targets: NDArray[np.bool_], scores: NDArray[np.float64]) -> _SortedTrials:
        """Sort trials [trials], whose scores are finite."""
        order = np.argsort(-scores, kind="stable")
        target = targets[order]
        accepted = np.append(0, np.nonzero(np.diff(scores[order], append=np.nan))[0] + 1)
        above = np.append(0, np.cumsum(target))[accepted]
        return cls(order[target], order[~target], above, accepted - above)

    def crossing(self, weights: NDArray[np.float64]) -> float:
        """Return where false alarms equal misses, in percent, with each trial's weight [trials]; NaN without any."""
        hits, alarms = np.cumsum(weights[self.targets]), np.cumsum(weights[self.nontargets])
        if not (len(hits) and len(alarms) and hits[-1] and alarms[-1]):
            return math.nan

        def balance(threshold: int) -> float:
            # Misses less false alarms: falls from 1 to -1 on the way from the strictest threshold to the laxest.
            return 1.0 - _share(hits, self.targets_above[threshold]) - _share(alarms, self.nontargets_above[threshold])

        # Negated, since bisection needs keys that rise.
        after = bisect_left(range(len(self.targets_above)), 0.0, key=lambda threshold: -balance(threshold))
        before = after - 1
        way = balance(before) / (balance(before) - balance(after))
        alarm, next_alarm = (_share(alarms, self.nontargets_above[threshold]) for threshold in (before, after))
        return 100.0 * (alarm + way * (next_alarm - alarm))


def _share(sums: NDArray[np.float64], count: int) -> float:
    """Return the share of all weight that the first `count` trials have, by the sums up to each of them."""
    return float(sums[count - 1] / sums[-1]) if count else 0.0


def equal_error_rate(targets: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Return the equal error rate in percent; `targets` and `scores` are [trials], high scores mean "one speaker".

    NaN where there are no target trials, or no non-target ones, or a score isn't finite.
    """
    if not np.isfinite(scores).all():
        return math.nan
    return _SortedTrials.of(targets, scores).crossing(np.ones(len(scores)))


def score(metric: Metric, targets: NDArray[np.bool_], scores: NDArray[np.float64]) -> Score:
    """Return the equal error rate as a score over trials, which an interval resamples; NaN if a score isn't finite."""
    if not np.isfinite(scores).all():  # a sort would put NaN anywhere, and find 0 or 50 % there
        return Score(metric, len(scores), lambda weights: np.asarray(math.nan), vectorised=False)
    trials = _SortedTrials.of(targets, scores)  # nothing is sorted again
    return Score(metric, len(scores), lambda weights: np.asarray(trials.crossing(weights)), vectorised=False)
