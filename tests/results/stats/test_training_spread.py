"""What training adds to an interval: measured, shipped, pooled, and how it widens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from downstreams import registry
from downstreams.metrics.scores import Metric, Score, ratio
from superb_eval import recipe
from superb_eval.results.record import RunRecord
from superb_eval.results.stats import differences, intervals, training_spread
from superb_eval.results.stats.differences import Difference, holm
from superb_eval.results.stats.training_spread import TrainingSpread, Variance, measure, widen
from tests.results.runs import new_record

ACC = Metric("acc", "ACC", higher_is_better=True)
UNITS = 300


def seeds(rng: np.random.Generator, count: int, sd: float, rate: float = 0.6) -> list[Score]:
    """Accuracies of several seeds on the same units; their heads differ by `sd`, and by chance."""
    hard = rng.standard_normal(UNITS)
    limits = stats.norm.ppf(np.clip(rate + sd * rng.standard_normal(count), 0.01, 0.99))
    rights = [(0.8 * hard + 0.6 * rng.standard_normal(UNITS) < limit).astype(float) for limit in limits]
    return [ratio(ACC, right, np.ones(UNITS)) for right in rights]


@pytest.mark.parametrize("sd", [0.0, 0.08])
def test_the_spread_is_what_chance_on_the_test_units_leaves(sd: float) -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(40):
        scores = seeds(rng, 5, sd)
        found.append(measure([s.value for s in scores], [intervals.distribution(s) for s in scores]))
    assert all(spread.df == 4 and spread.seed_sd >= spread.sd for spread in found)
    assert np.mean([spread.sd**2 for spread in found]) ** 0.5 == pytest.approx(100 * sd, abs=1.2)


def test_measured_and_shipped_are_pooled_by_their_degrees_of_freedom() -> None:
    scores = seeds(np.random.default_rng(1), 3, 0.05)
    values, draws = [s.value for s in scores], [intervals.distribution(s) for s in scores]
    alone, pooled = measure(values, draws), measure(values, draws, TrainingSpread(2.0, 3.0, 8.0, "shipped"))
    assert pooled.df == 10 and pooled.seed_sd == pytest.approx(math.sqrt((2 * alone.seed_sd**2 + 8 * 9) / 10))


def test_widening_adds_in_quadrature_on_each_side() -> None:
    low, high = widen(50.0, (46.0, 53.0), Variance(4.0, math.inf))
    assert (low, high) == (
        pytest.approx(50 - math.hypot(4, 3.92), abs=0.01),
        pytest.approx(50 + math.hypot(3, 3.92), abs=0.01),
    )
    assert widen(50.0, (46.0, 53.0), Variance(0.0, math.inf)) == (46.0, 53.0)
    few = widen(50.0, (46.0, 53.0), Variance(4.0, 2.0))
    assert few[0] == pytest.approx(50 - math.hypot(4, 4.303 * 2), abs=0.01), "two degrees of freedom"


def test_an_interval_ends_where_a_metric_does() -> None:
    assert training_spread.possible((-4.1, 9.6), higher_is_better=False) == (0.0, 9.6)
    assert training_spread.possible((97.0, 103.0), higher_is_better=True) == (97.0, 100.0)
    assert training_spread.possible((96.0, 112.0), higher_is_better=False) == (96.0, 112.0), "insertions count"


def test_a_run_without_a_known_spread_is_cut_too(a_record: RunRecord) -> None:
    metric = a_record.metrics[0].model_copy(update={"low": -27.0, "high": 157.0})
    assert training_spread.of_metric(a_record, metric) is None
    assert training_spread.widened(a_record, metric) == (0.0, 100.0)


def test_satterthwaites_degrees_of_freedom() -> None:
    assert Variance.total([Variance(1.0, 4), Variance(1.0, 4)]) == Variance(2.0, 8.0)
    assert Variance.total([Variance(0.0, 1), Variance(3.0, 7)]).df == pytest.approx(7.0)
    assert Variance.total([]) == Variance(0.0, math.inf)


def test_a_cell_covers_the_mean_over_trainings() -> None:
    """One seed with a shipped spread, and three seeds with none."""
    rng, sd = np.random.default_rng(2), 0.04
    covered = {1: 0, 3: 0}
    for _ in range(100):
        for count in covered:
            scores = seeds(rng, count, sd)
            draws = [intervals.distribution(s) for s in scores]
            value = float(np.mean([s.value for s in scores]))
            shipped = TrainingSpread(100 * sd * math.sqrt(rng.chisquare(12) / 12), 5.0, 12.0, "")
            spread = shipped if count == 1 else measure([s.value for s in scores], draws)
            mean = sum(draws[1:], draws[0]) / count
            ends = intervals.percentiles(mean, UNITS - 1)
            low, high = widen(value, ends, Variance(spread.sd**2 / count, spread.df))
            covered[count] += low <= 60.0 <= high
    assert all(hits >= 90 for hits in covered.values()), covered


def test_seeds_of_one_system_are_not_told_apart() -> None:
    rng, sd = np.random.default_rng(3), 0.06
    found = {True: 0, False: 0}
    for _ in range(100):
        one, other = seeds(rng, 2, sd)
        draws = intervals.distribution(one) - intervals.distribution(other)
        for training in (True, False):
            variance = Variance(2 * (100 * sd) ** 2 if training else 0.0, 16)
            difference = differences.paired(one.value - other.value, draws, UNITS - 1, "utterances", variance)
            found[training] += difference.distinguishable
    assert found[True] <= 9 and found[False] >= 20, "without the variance of training they would be"


def test_what_is_shipped_is_found_by_recipe_corpus_and_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    record = new_record("hubert", "ks")
    assert training_spread.find(record, "acc") is None
    shipped = {("r-ks", "pack", "acc"): TrainingSpread(1.0, 2.0, 9.0, "here")}
    monkeypatch.setattr(training_spread, "_shipped", lambda: shipped)
    found = training_spread.find(record, "acc")
    assert found is not None and found.source == "here" and training_spread.find(record, "f1") is None
    searched = training_spread.find(new_record("hubert", "qbe"), "mtwv")
    assert searched is not None and searched.sd == 0, "nothing is trained there"


def test_every_shipped_spread_is_of_a_shipped_recipe() -> None:
    """A recipe that is changed needs its spread measured anew: `python -m tests.benchmarks seeds`."""
    shipped = training_spread._shipped()
    for path in sorted((recipe.folder() / "mini").glob("*.yaml")):
        loaded = recipe.load(path)
        metrics = [metric.key for metric in registry.get(loaded.task).metrics]
        lacking = [key for key in metrics if (loaded.digest(), "synthetic-mini-seed0", key) not in shipped]
        assert loaded.task in ("qbe", "gender") or not lacking, f"{path}: no spread is shipped for {lacking}"
    assert all(spread.df >= 3 and 0 <= spread.sd <= spread.seed_sd < 20 for spread in shipped.values())


def test_holm_controls_the_family() -> None:
    family = {
        key: Difference(1.0, 0.1, 2.0, "units", p) for key, p in zip("abcd", (0.01, 0.04, 0.03, 0.005), strict=True)
    }
    adjusted = holm({**family, "e": Difference(1.0, 0.1, 2.0, "units")})
    assert [adjusted[key].p for key in "abcde"] == [pytest.approx(0.03), 0.06, 0.06, 0.02, None]
