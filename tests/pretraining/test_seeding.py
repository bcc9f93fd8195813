from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superb_eval.pretraining import seeding


@given(numbers=st.lists(st.integers(0, 2**70), min_size=1, max_size=3), last=st.lists(st.integers(0, 2**32 - 1)))
def test_seeds_are_those_of_numpy(numbers: list[int], last: list[int]) -> None:
    each = [np.random.SeedSequence((*numbers, number)).generate_state(1, np.uint64)[0] for number in last]
    assert seeding.derive_seeds(numbers, last) == [int(seed) >> 1 for seed in each]


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**63 - 1])
def test_generators_are_those_of_numpy(seed: int) -> None:
    (own,), theirs = seeding.generators([seed]), np.random.default_rng(seed)
    assert own.random() == theirs.random()
    assert own.choice(300, size=20, replace=False).tolist() == theirs.choice(300, size=20, replace=False).tolist()
