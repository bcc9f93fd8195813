"""One figure for ten tasks: the SUPERB score, and the plain mean that distillation papers print.

Sources: for the score and its anchors superbbenchmark.github.io `src/overall_metrics.js` and `src/Data.js` (commit
a35a9ec); for the mean the result tables of ARMHuBERT (arXiv 2305.11685).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from downstreams import registry

ANCHORS: dict[str, dict[str, tuple[float, float]]] = {
    "pr": {"per": (17.99, 96.47)},
    "asr": {"wer": (76.82, 96.38)},
    "ks": {"acc": (41.3826674, 96.66)},
    "qbe": {"mtwv": (0.58, 7.36)},
    "sid": {"acc": (20.058174, 90.3)},
    "asv": {"eer": (90.44, 94.89)},
    "sd": {"der": (89.95, 94.38)},
    "ic": {"acc": (9.649354219, 98.76)},
    "sf": {"f1": (69.64, 89.81), "cer": (47.06, 78.24)},
    "er": {"acc": (48.23672168, 67.62)},
}
"""(FBANK as the leaderboard re-ran it, best model of 2021) per metric; errors as 100 - error."""

METRICS = tuple((task, key) for task, metrics in ANCHORS.items() for key in metrics)
"""The eleven metrics, by task and key."""

Value = TypeVar("Value", float, NDArray[np.float64])
"""A figure, or a figure on each of many resamples."""


def superb_s(figures: Mapping[tuple[str, str], Value]) -> Value | None:
    """Return the SUPERB score: 0 is FBANK, 1000 the best of 2021 on every task; None where a metric is missing.

    `figures` are in percent (MTWV x 100) by (task, metric), such as `("pr", "per")`. A task with two metrics averages
    their points, and tasks have equal weights. The score may be negative and may pass 1000.
    """
    if missing(figures):
        return None
    return _mean(
        _mean(_points((task, key), figures[task, key], *ends) for key, ends in metrics.items())
        for task, metrics in ANCHORS.items()
    )


def mean_of_metrics(figures: Mapping[tuple[str, str], Value]) -> Value | None:
    """Return the plain mean of the eleven metrics, errors as 100 - error, SF's two apart; None where one is missing."""
    return None if missing(figures) else _mean(_higher_is_better(metric, figures[metric]) for metric in METRICS)


def missing(figures: Mapping[tuple[str, str], Value]) -> list[str]:
    """Return the tasks that lack a metric."""
    return list(dict.fromkeys(task for task, key in METRICS if (task, key) not in figures))


def _points(metric: tuple[str, str], value: Value, bottom: float, top: float) -> Value:
    return 1000 * (_higher_is_better(metric, value) - bottom) / (top - bottom)


def _higher_is_better(metric: tuple[str, str], value: Value) -> Value:
    return 100 - value if _is_error_rate(*metric) else value


@cache
def _is_error_rate(task: str, key: str) -> bool:
    return next(metric for metric in registry.get(task).metrics if metric.key == key).is_error_rate


def _mean(values: Iterable[Value]) -> Value:
    listed = list(values)
    total = listed[0]
    for value in listed[1:]:
        total = total + value
    return total / len(listed)
