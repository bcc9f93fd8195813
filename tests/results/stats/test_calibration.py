"""Intervals have their nominal coverage, and equal systems are found to differ no more often than nominal.

The study of 1 000 simulations a case is `python -m tests.benchmarks calibration`; its figures are in
`superb_eval/results/README.md`.
"""

from __future__ import annotations

import pytest
from scipy import stats

from tests.benchmarks.calibration import CASES, rates

SIMULATIONS = {"EER 25 %, 450 trials": 100}
"""An EER takes half a second each time; the easier of its two cases is left to the study."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name != "EER 5 %, 750 trials"])
def test_coverage_and_size(name: str) -> None:
    simulations = SIMULATIONS.get(name, 300)
    covered, found = rates(name, simulations)
    # Where a true rate of 95 % comes to in 99 of 100 such studies, and one of 5 %.
    least, most = (100 * count / simulations for count in stats.binom.interval(0.99, simulations, 0.95))
    assert least <= covered <= most
    assert 1.0 <= found <= 100 - least
