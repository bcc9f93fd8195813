"""What a score is: a figure of the table, the function that computes it again on a resample, and what is resampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
class Nesting:
    """What test units are made of: utterances, each of a speaker.

    `utterances` [units, sides] index the utterances of each unit: one of its own for most tasks, two for a trial.
    `speakers` [utterances] index the speaker of each utterance.
    """

    utterances: NDArray[np.intp]
    speakers: NDArray[np.intp]


@dataclass(frozen=True)
class Score:
    """A metric over `units` test units: utterances, trials, queries or recordings.

    `statistic` computes the metric where each unit counts by its weight, [units] -> [], so that an interval can
    resample units. Where it is `vectorised` it takes many resamples at once, [..., units] -> [...]. It is
    NaN where it is undefined.
    """

    metric: Metric
    units: int
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    vectorised: bool = True
    strata: NDArray[np.intp] | None = None
    """[units]: resample within each stratum (ER's folds); None: all units alike."""
    nesting: Nesting | None = None
    """Of the units, where the speakers are known."""
    share: bool = False
    """Each unit is correct or not, and the metric is the share that is correct, in percent."""
    by_unit: NDArray[np.float64] | None = None
    """[units]: the metric on each unit alone, where it is a mean or a ratio; NaN where it is undefined on that unit."""

    @property
    def value(self) -> float:
        """Return the metric over all units."""
        return float(self.statistic(np.ones(self.units)))


def ratio(metric: Metric, numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> Score:
    """Return a ratio of sums over rows, in percent: micro-averaged accuracies and error rates.

    Both arrays are [rows]; one value per row, so that an interval can resample them. It is undefined where all
    denominators are 0, such as the error rate of empty references.
    """

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(_percent(weights @ numerators, weights @ denominators))

    return Score(metric, len(numerators), statistic, by_unit=_percent(numerators, denominators))


def nest(speakers: Sequence[Sequence[str]], utterances: Sequence[Sequence[str]]) -> Nesting | None:
    """Return what units are made of, from the names of each unit's utterances and of their speakers.

    Both are [units][sides]. An utterance without a speaker is taken as one of a speaker of its own. None where no
    speaker is known.
    """
    if not any(name for sides in speakers for name in sides):
        return None
    speaker_of = {
        utterance: speaker or f"\0{utterance}"
        for names, sides in zip(utterances, speakers, strict=True)
        for utterance, speaker in zip(names, sides, strict=True)
    }
    place = {utterance: k for k, utterance in enumerate(speaker_of)}
    _, speaker_index = np.unique(list(speaker_of.values()), return_inverse=True)
    indices = np.array([[place[utterance] for utterance in names] for names in utterances], dtype=np.intp)
    return Nesting(indices, speaker_index.astype(np.intp))


def _percent(numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        values = 100.0 * np.asarray(numerators) / np.asarray(denominators)
    return np.where(np.isfinite(values), values, np.nan)
