from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from downstreams import base
from downstreams.base import Prediction, ratio
from downstreams.metrics import eer
from downstreams.metrics.scores import Metric, Score
from superb_eval.results.stats.intervals import WILSON, distribution, interval, method

ACC = Metric("acc", "ACC", higher_is_better=True)
WER = Metric("wer", "WER", higher_is_better=False)


def accuracy(right: int, of: int) -> Score:
    return ratio(ACC, np.repeat([1.0, 0.0], [right, of - right]), np.ones(of))


def test_agrees_with_the_normal_approximation_where_that_holds() -> None:
    low, high = interval(accuracy(600, 1000))
    half = 100 * 1.96 * np.sqrt(0.6 * 0.4 / 1000)
    assert low == pytest.approx(60 - half, abs=0.4)
    assert high == pytest.approx(60 + half, abs=0.4)


def test_a_ratio_of_sums_is_resampled_as_one() -> None:
    """Long utterances weigh more in a micro-averaged error rate, in each resample too."""
    rng = np.random.default_rng(0)
    words = rng.integers(1, 40, size=500).astype(float)
    errors = rng.binomial(words.astype(int), 0.1).astype(float)
    score = ratio(WER, errors, words)
    draws = rng.integers(0, 500, size=(4000, 500))
    ratios = 100 * errors[draws].sum(axis=1) / words[draws].sum(axis=1)
    assert interval(score) == pytest.approx(tuple(np.percentile(ratios, [2.5, 97.5])), abs=0.15)
    assert interval(score)[0] < score.value < interval(score)[1]


def test_is_repeatable_and_copes_with_one_outcome() -> None:
    assert interval(accuracy(7, 20)) == interval(accuracy(7, 20))
    assert interval(accuracy(20, 20)) == (100.0, 100.0)
    assert interval(accuracy(1, 1)) == (100.0, 100.0)


def test_strata_are_resampled_each_within_itself() -> None:
    """Five folds: the mean of their accuracies varies less than if utterances could change folds."""
    right = np.repeat([1.0, 0.0], 50)
    strata = np.repeat([0, 1], 50)
    within = Score(ACC, 100, ratio(ACC, right, np.ones(100)).statistic, strata=strata)
    assert interval(within) == pytest.approx((50.0, 50.0))
    assert interval(accuracy(50, 100))[0] < 45


def test_a_statistic_that_takes_one_resample_at_a_time_gives_the_same() -> None:
    whole = accuracy(30, 50)
    single = Score(ACC, 50, whole.statistic, vectorised=False)
    assert interval(single) == pytest.approx(interval(whole), abs=1e-9)


@pytest.mark.parametrize(("right", "of"), [(0, 20), (20, 20), (7, 20), (355, 366), (1, 1)])
def test_shares_get_wilsons_interval(right: int, of: int) -> None:
    rows = [Prediction(str(i), "a", "a" if i < right else "b") for i in range(of)]
    score = base.accuracy(ACC, rows)
    expected = stats.binomtest(right, of).proportion_ci(method="wilson")
    assert method(score) == WILSON
    assert interval(score) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-9)


def test_a_skewed_metric_gets_what_scipys_bca_gives() -> None:
    """scipy's own BCa bootstrap; with 400 units the widening by Student's t is small."""
    rng = np.random.default_rng(3)
    words = rng.integers(3, 30, size=400).astype(float)
    errors = rng.binomial(words.astype(int), rng.beta(0.3, 4.7, size=400)).astype(float)
    score = ratio(WER, errors, words)
    theirs = stats.bootstrap(
        (errors, words),
        lambda e, w, axis=-1: 100 * e.sum(axis=axis) / w.sum(axis=axis),
        paired=True,
        method="BCa",
        n_resamples=4000,
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert interval(score) == pytest.approx((theirs.low, theirs.high), rel=0.03)


def test_the_same_seed_draws_the_same_units_of_every_score() -> None:
    one, other = accuracy(30, 50), accuracy(20, 50)
    assert (distribution(one) - distribution(other)).min() >= 0, "each draw holds the units of the other"


def test_a_metric_that_is_undefined_on_some_resamples_still_has_an_interval() -> None:
    targets = np.array([True] + [False] * 9)
    low, high = interval(eer.score(ACC, targets, np.linspace(0, 1, 10)))
    assert np.isfinite([low, high]).all()
