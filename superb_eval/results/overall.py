"""One figure for ten tasks: the SUPERB score, and the plain mean that distillation papers print.

Sources: for the score and its anchors superbbenchmark.github.io `src/overall_metrics.js` and `src/Data.js` (commit
a35a9ec); for the mean the result tables of ARMHuBERT (arXiv 2305.11685).
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

ERRORS = {"pr_per", "asr_wer", "asv_eer", "sd_der", "sf_cer"}
"""Metrics of which less is better, in percent; they enter as 100 - value."""

ANCHORS: dict[str, dict[str, tuple[float, float]]] = {
    "pr": {"pr_per": (17.99, 96.47)},
    "asr": {"asr_wer": (76.82, 96.38)},
    "ks": {"ks_acc": (41.3826674, 96.66)},
    "qbe": {"qbe_mtwv": (0.58, 7.36)},
    "sid": {"sid_acc": (20.058174, 90.3)},
    "asv": {"asv_eer": (90.44, 94.89)},
    "sd": {"sd_der": (89.95, 94.38)},
    "ic": {"ic_acc": (9.649354219, 98.76)},
    "sf": {"sf_f1": (69.64, 89.81), "sf_cer": (47.06, 78.24)},
    "er": {"er_acc": (48.23672168, 67.62)},
}
"""(FBANK as the leaderboard re-ran it, best model of 2021) per metric, after errors are turned round."""


def superb_s(figures: Mapping[str, float]) -> float | None:
    """Return the SUPERB score: 0 is FBANK, 1000 the best of 2021 on every task; None where a metric is missing.

    `figures` are in percent (MTWV x 100) by `task_metric`, such as `pr_per`. A task with two metrics averages their
    points, and tasks are averaged alike. The score may be negative and may pass 1000.
    """
    if not _complete(figures):
        return None
    return fmean(fmean(_points(key, figures[key], *ends) for key, ends in task.items()) for task in ANCHORS.values())


def mean_of_metrics(figures: Mapping[str, float]) -> float | None:
    """Return the plain mean of the eleven metrics, errors turned round, SF's two apart; None where one is missing."""
    return (
        fmean(_turned(key, figures[key]) for task in ANCHORS.values() for key in task) if _complete(figures) else None
    )


def _complete(figures: Mapping[str, float]) -> bool:
    return all(key in figures for task in ANCHORS.values() for key in task)


def _points(key: str, value: float, bottom: float, top: float) -> float:
    return 1000 * (_turned(key, value) - bottom) / (top - bottom)


def _turned(key: str, value: float) -> float:
    return 100 - value if key in ERRORS else value
