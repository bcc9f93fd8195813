"""How far a figure moves when a head is trained again with another seed: the part of an interval that training adds.

Seeds of one system on the same test units differ for two reasons: their heads differ in quality, and by chance they
answer other units right. The second is in the interval over test units already, so the *spread* is the first alone:
the variance between seeds less half the variance, over test units, of the difference of two seeds. Where several seeds
were run it is measured from them; with one seed it is what the recipe ships (`recipes/training_spread.csv`), measured
on several upstreams; both are pooled by their degrees of freedom (Smyth 2004). Rounding on another processor counts
like another seed.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from statistics import fmean
from statistics import variance as sample_variance

from downstreams import registry
from downstreams.base import SearchTask
from superb_eval import recipe
from superb_eval.results.record import MetricRecord, RunRecord
from superb_eval.results.stats import intervals
from superb_eval.results.stats.intervals import Draws

NAME = "training_spread.csv"
"""In the folder of the shipped recipes."""


@dataclass(frozen=True)
class TrainingSpread:
    """Standard deviations of a figure between seeds, in its unit; `df` is how well they are known.

    `sd` is the part beyond the test units, `seed_sd` all of it, on the same test units.
    """

    sd: float
    seed_sd: float
    df: float
    source: str


@dataclass(frozen=True)
class Variance:
    """A variance, and the degrees of freedom that it was estimated with."""

    value: float
    df: float

    @staticmethod
    def total(parts: Iterable[Variance]) -> Variance:
        """Return the variance of a sum, with Satterthwaite's (1946) degrees of freedom."""
        present = [part for part in parts if part.value > 0]
        total = sum(part.value for part in present)
        spent = sum(part.value**2 / part.df for part in present)
        return Variance(total, total**2 / spent if spent > 0 else math.inf)


def find(record: RunRecord, key: str) -> TrainingSpread | None:
    """Return the spread that a run's recipe ships for a metric; None where its recipe or corpus was not measured, or
    not on all of its utterances."""
    task = registry.get_or_base(record.task)
    if issubclass(task, SearchTask):
        return TrainingSpread(0.0, 0.0, math.inf, "nothing is trained")
    measured = _shipped().get((record.recipe_digest, record.corpus.name, key))
    return measured if record.limit is None else None


def of_metric(record: RunRecord, metric: MetricRecord) -> TrainingSpread | None:
    """Return the spread of one recorded figure; None for a historical one: the best of several moves otherwise."""
    return find(record, metric.key) if metric.protocol == "strict" else None


def measure(values: Sequence[float], draws: Sequence[Draws], shipped: TrainingSpread | None = None) -> TrainingSpread:
    """Return the spread of several seeds' figures, pooled with the shipped one where there is one.

    `draws` are of each seed, on the same resamples of the same test units.
    """
    beyond, between = variances(values, draws)
    df, source = float(len(values) - 1), f"{len(values)} seeds"
    if shipped is not None and math.isfinite(shipped.df):
        total = df + shipped.df
        beyond = (df * beyond + shipped.df * shipped.sd**2) / total
        between = (df * between + shipped.df * shipped.seed_sd**2) / total
        df, source = total, f"{source}, {shipped.source}"
    return TrainingSpread(math.sqrt(max(0.0, beyond)), math.sqrt(between), df, source)


def variances(values: Sequence[float], draws: Sequence[Draws]) -> tuple[float, float]:
    """Return the variance between seeds beyond the test units, which may come out below 0, and all of it."""
    between = sample_variance(values)
    by_chance = fmean(intervals.variance(one - other) / 2 for one, other in combinations(draws, 2))
    return between - by_chance, between


def widened(record: RunRecord, metric: MetricRecord) -> tuple[float, float]:
    """Return the ends of a run's interval, cut to what is possible, with the variance of training where it is known."""
    spread, ends = of_metric(record, metric), (metric.low, metric.high)
    if spread is not None:
        ends = widen(metric.value, ends, Variance(spread.sd**2, spread.df))
    return possible(ends, metric.higher_is_better)


def possible(ends: tuple[float, float], higher_is_better: bool) -> tuple[float, float]:
    """Return the ends cut to what a task's metric can be: 0 at least, and 100 at most where higher is better."""
    low, high = ends
    return max(0.0, low), min(100.0, high) if higher_is_better else high


def widen(value: float, ends: tuple[float, float], training: Variance) -> tuple[float, float]:
    """Return the ends of an interval over test units with the variance of training added to each side.

    Each side's distance is added in quadrature, which keeps a skewed interval skewed (the method of variance estimates
    recovery: Zou and Donner 2008).
    """
    reach = intervals.reach(training.df) * math.sqrt(training.value)
    low, high = (math.hypot(max(0.0, distance), reach) for distance in (value - ends[0], ends[1] - value))
    return value - low, value + high


@cache
def _shipped() -> dict[tuple[str, str, str], TrainingSpread]:
    """The shipped spreads, by recipe digest, corpus and metric."""
    with (recipe.folder() / NAME).open(encoding="utf8", newline="") as file:
        return {
            (row["recipe_digest"], row["corpus"], row["metric"]): TrainingSpread(
                float(row["sd"]), float(row["seed_sd"]), float(row["df"]), row["source"]
            )
            for row in csv.DictReader(file)
        }
