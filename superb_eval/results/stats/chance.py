"""Which figures are not above chance: their interval includes what a constant or random answer scores."""

from __future__ import annotations

from superb_eval.results.record import MetricRecord, RunRecord
from superb_eval.results.stats import training_spread


def reaches(metric: MetricRecord, ends: tuple[float, float], chance: float | None) -> bool:
    """Return whether the interval `ends` of a task's first metric includes chance, or lies on its wrong side."""
    if chance is None:
        return False
    low, high = ends
    return low <= chance if metric.higher_is_better else high >= chance


def of_record(record: RunRecord) -> bool:
    """Return whether a run is not above chance beyond the interval that is printed for it."""
    first = record.metrics[0]
    return reaches(first, training_spread.widened(record, first), record.chance)
