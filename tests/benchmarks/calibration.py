"""Coverage of confidence intervals, and how often a paired test finds a difference between equal systems.

Systems of known accuracy, WER, EER and DER are simulated; both rates should be 95 % and 5 %. `python -m
tests.benchmarks calibration` prints the table in `superb_eval/results/README.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import stats

from downstreams.base import ratio
from downstreams.metrics import eer
from downstreams.metrics.scores import Metric, Score
from superb_eval.results.stats import intervals

SIMULATIONS = 1000
ERROR = Metric("e", "E", higher_is_better=False)

Simulated = Callable[[np.random.Generator, int], tuple[Score, Score]]
"""Scores of two equally good systems on the same units; the true value of both is the case's."""


def accuracy(share: float) -> Simulated:
    """Simulate accuracy; half of each unit's difficulty is common to both systems."""

    def draw(rng: np.random.Generator, units: int) -> tuple[Score, Score]:
        common = rng.standard_normal(units)
        limit = stats.norm.ppf(share)
        hits = [(common + rng.standard_normal(units)) / np.sqrt(2) < limit for _ in range(2)]
        a, b = (replace(ratio(ERROR, hit.astype(float), np.ones(units)), share=True) for hit in hits)
        return a, b

    return draw


def word_errors(rate: float) -> Simulated:
    """Simulate WER on utterances of 3 to 34 words, some of them much harder than others."""

    def draw(rng: np.random.Generator, units: int) -> tuple[Score, Score]:
        words = rng.integers(3, 35, units)
        hard = rng.beta(5 * rate, 5 * (1 - rate), units)
        a, b = (ratio(ERROR, rng.binomial(words, hard).astype(float), words.astype(float)) for _ in range(2))
        return a, b

    return draw


def diarisation(rate: float) -> Simulated:
    """Simulate DER on recordings of 5 to 40 s of speech; the wrong share follows a gamma distribution."""

    def draw(rng: np.random.Generator, units: int) -> tuple[Score, Score]:
        spoken, common = rng.uniform(5, 40, units), rng.gamma(1, rate / 2, units)
        a, b = (ratio(ERROR, spoken * (common + rng.gamma(1, rate / 2, units)), spoken) for _ in range(2))
        return a, b

    return draw


def verification(rate: float) -> Simulated:
    """Simulate EER; half of the trials are of one speaker, and scores are normal around means that give the rate."""

    def draw(rng: np.random.Generator, units: int) -> tuple[Score, Score]:
        target = np.arange(units) % 2 == 0
        apart = -2 * stats.norm.ppf(rate)
        common = rng.standard_normal(units)
        scores = [(common + rng.standard_normal(units)) / np.sqrt(2) + apart * target for _ in range(2)]
        a, b = (eer.score(ERROR, target, score) for score in scores)
        return a, b

    return draw


CASES: dict[str, tuple[Simulated, float, int]] = {
    "accuracy 60 %, 366 utterances": (accuracy(0.60), 60.0, 366),
    "accuracy 97 %, 366 utterances": (accuracy(0.97), 97.0, 366),
    "accuracy 90 %, 77 utterances": (accuracy(0.90), 90.0, 77),
    "WER 6 %, 300 utterances": (word_errors(0.06), 6.0, 300),
    "WER 25 %, 100 utterances": (word_errors(0.25), 25.0, 100),
    "EER 5 %, 750 trials": (verification(0.05), 5.0, 750),
    "EER 25 %, 450 trials": (verification(0.25), 25.0, 450),
    "DER 6 %, 300 recordings": (diarisation(0.06), 6.0, 300),
    "DER 20 %, 60 recordings": (diarisation(0.20), 20.0, 60),
}
"""A simulation, the true value in percent, and the number of test units."""


def rates(name: str, simulations: int = SIMULATIONS) -> tuple[float, float]:
    """Return how often the interval covers the truth, and how often equal systems are found to differ, in percent."""
    simulate, truth, units = CASES[name]
    covered = different = 0
    for k in range(simulations):
        ours, theirs = simulate(np.random.default_rng([k, units]), units)
        low, high = intervals.interval(ours)
        covered += low <= truth <= high
        draws = intervals.distribution(ours), intervals.distribution(theirs)
        difference = intervals.paired(ours.value - theirs.value, *draws, units, "units")
        different += difference.distinguishable
    return 100 * covered / simulations, 100 * different / simulations


def run() -> str:
    lines = ["| simulated | interval covers | paired test, no difference |", "| --- | ---: | ---: |"]
    for name in CASES:
        covered, different = rates(name)
        lines.append(f"| {name} | {covered:.1f} % | {different:.1f} % |")
        print(lines[-1], flush=True)
    return "\n".join(lines)
