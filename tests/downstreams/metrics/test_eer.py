"""The equal error rate against s3prl's, and against a count over all thresholds."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from downstreams.metrics.eer import equal_error_rate, score
from downstreams.metrics.scores import Metric

METRIC = Metric("eer", "EER", higher_is_better=False)

trials = st.lists(st.tuples(st.booleans(), st.integers(-6, 6)), min_size=2, max_size=40).filter(
    lambda drawn: len({target for target, _ in drawn}) == 2
)
"""Few distinct scores, so that ties abound."""


def arrays(drawn: list[tuple[bool, int]]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    return np.array([t for t, _ in drawn]), np.array([s / 6 for _, s in drawn])


def brute_force(targets: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Count misses and false alarms at each threshold; where they change order, cut the line between two counts."""
    points = []
    for threshold in [math.inf, *sorted(set(scores), reverse=True)]:
        accepted = scores >= threshold
        points.append((1 - accepted[targets].mean(), accepted[~targets].mean()))
    for (miss, alarm), (next_miss, next_alarm) in pairwise(points):
        if next_miss <= next_alarm:
            t = (miss - alarm) / ((miss - alarm) - (next_miss - next_alarm))
            return float(100 * (alarm + t * (next_alarm - alarm)))
    raise AssertionError("the lines never cross")


@settings(max_examples=400, deadline=None)
@given(trials)
def test_it_is_where_a_count_over_thresholds_crosses(drawn: list[tuple[bool, int]]) -> None:
    targets, scores = arrays(drawn)
    assert equal_error_rate(targets, scores) == pytest.approx(brute_force(targets, scores), abs=1e-9)


@settings(max_examples=300, deadline=None)
@given(trials)
def test_it_is_that_of_s3prl(drawn: list[tuple[bool, int]]) -> None:
    from s3prl.downstream.sv_voxceleb1.utils import EER

    targets, scores = arrays(drawn)
    # Its interpolation is ambiguous where several points of the curve share a false alarm rate, but not there.
    expected, _ = EER(targets.astype(int), scores)
    assert equal_error_rate(targets, scores) == pytest.approx(100 * expected, abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(trials, st.integers(0, 2**32 - 1))
def test_a_resample_is_scored_as_if_it_were_written_out(drawn: list[tuple[bool, int]], seed: int) -> None:
    targets, scores = arrays(drawn)
    chosen = np.random.default_rng(seed).integers(0, len(scores), len(scores))
    weights = np.bincount(chosen, minlength=len(scores)).astype(np.float64)
    actual = float(score(METRIC, targets, scores).statistic(weights))
    expected = equal_error_rate(targets[chosen], scores[chosen])
    assert actual == pytest.approx(expected, nan_ok=True, abs=1e-9)


def test_separated_scores_err_never_and_swapped_ones_always() -> None:
    targets, scores = np.array([True, True, False, False]), np.array([0.9, 0.8, 0.2, 0.1])
    assert equal_error_rate(targets, scores) == 0
    assert equal_error_rate(~targets, scores) == 100
    assert equal_error_rate(targets, np.zeros(4)) == 50


def test_trials_of_one_kind_have_no_equal_error_rate() -> None:
    assert math.isnan(equal_error_rate(np.array([True, True]), np.array([0.1, 0.2])))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_leaves_it_undefined(bad: float) -> None:
    """A sort puts NaN at one end, where it would count as the best or the worst score: 0 or 50 %."""
    targets, scores = np.array([True, True, False, False]), np.array([0.9, bad, 0.2, 0.1])
    assert math.isnan(equal_error_rate(targets, scores)) and math.isnan(score(METRIC, targets, scores).value)
