"""Intervals have their nominal coverage, and equal systems are found to differ no more often than nominal.

The study of all cases is `python -m tests.benchmarks calibration`; its figures are in `docs/intervals.md`. ASV's are
there alone: a simulation takes seconds, and a few of them show nothing.
"""

from __future__ import annotations

import pytest
from scipy import stats

from superb_eval.results.stats.resampling import NEW_SPEAKERS, NEW_UNITS, THESE_SPEAKERS, Population
from tests.benchmarks.calibration import CASES, rates

CASE_BY_TASK = {case.name.partition(":")[0]: case for case in reversed(CASES)}
"""The first case of each task."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "of", "simulations"),
    [
        ("KS", NEW_SPEAKERS, 100),
        ("KS", THESE_SPEAKERS, 50),
        ("PR", NEW_SPEAKERS, 200),
        ("SF", THESE_SPEAKERS, 100),
        ("SD", NEW_UNITS, 200),
        ("QbE", NEW_UNITS, 20),
    ],
)
def test_coverage_and_size(task: str, of: Population, simulations: int) -> None:
    covered, found = rates(CASE_BY_TASK[task], of, simulations)
    # What a true rate of 93 to 97 % comes to in 99.9 of 100 such studies, and one of 7 %.
    least, _ = (100 * count / simulations for count in stats.binom.interval(0.999, simulations, 0.93))
    _, most = (100 * count / simulations for count in stats.binom.interval(0.999, simulations, 0.07))
    assert covered >= least
    assert found <= most
