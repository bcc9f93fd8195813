"""What a score is: a figure of the table, and the function that computes it again on a resample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Metric:
    """A figure of the table: its key in records, its heading, its unit, and which direction is better."""

    key: str
    heading: str
    higher_is_better: bool
    unit: str = "%"

    @property
    def is_error_rate(self) -> bool:
        """Return whether it counts errors, in percent: 100 less it is a share of right answers."""
        return not self.higher_is_better and self.unit == "%"


@dataclass(frozen=True)
class Score:
    """A metric over `units` independent units: utterances, trials, queries or recordings.

    `statistic` computes the metric from the chosen units' indices, [..., chosen] -> [...], so that an interval can
    resample them. Where `vectorised` is False, it is called with one resample [chosen] at a time.
    """

    metric: Metric
    units: int
    statistic: Callable[[NDArray[np.intp]], NDArray[np.float64]]
    vectorised: bool = True
    strata: NDArray[np.intp] | None = None
    """[units]: resample within each stratum (ER's folds); None: all units alike."""
    share: bool = False
    """Each unit is correct or not, and the metric is the share that is correct, in percent."""

    @property
    def value(self) -> float:
        """Return the metric over all units."""
        return float(self.statistic(np.arange(self.units)))


def ratio(metric: Metric, numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> Score:
    """Return a ratio of sums over rows, in percent: micro-averaged accuracies and error rates.

    Both arrays are [rows]; one value per row, so that an interval can resample them.
    """

    def statistic(chosen: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.asarray(100.0 * numerators[chosen].sum(axis=-1) / denominators[chosen].sum(axis=-1))

    return Score(metric, len(numerators), statistic)
