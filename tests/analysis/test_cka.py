"""Linear CKA against its definition by HSIC, against its form in features, and its invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superb_eval.analysis.cka import by_chance, linear_cka


def noise(seed: int, units: int, layers: int, dim: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((units, layers, dim)) * 3 + 1


def hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741 - the paper's letters
    """Kornblith et al. 2019, equation 3."""
    n = len(k)
    h = np.eye(n) - np.ones((n, n)) / n
    return float(np.trace(k @ h @ l @ h)) / (n - 1) ** 2


@pytest.mark.parametrize(("units", "ours", "theirs"), [(12, 5, 7), (40, 6, 3), (9, 30, 2)])
def test_it_is_normalised_hsic_and_the_norm_of_feature_products(units: int, ours: int, theirs: int) -> None:
    x, y = noise(0, units, 3, ours), noise(1, units, 2, theirs)
    y[:, 1, :2] = x[:, 0, :2]
    found = linear_cka(x, y)
    for i in range(3):
        for j in range(2):
            a, b = x[:, i], y[:, j]
            k, l = a @ a.T, b @ b.T  # noqa: E741
            assert found[i, j] == pytest.approx(hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l)))
            ac, bc = a - a.mean(0), b - b.mean(0)
            norm = np.linalg.norm
            assert found[i, j] == pytest.approx(norm(bc.T @ ac) ** 2 / (norm(ac.T @ ac) * norm(bc.T @ bc)))


@given(st.integers(0, 10_000), st.integers(4, 20), st.integers(1, 8), st.floats(0.01, 100))
def test_rotation_scale_shift_and_order_do_not_matter(seed: int, units: int, dim: int, scale: float) -> None:
    x, y = noise(seed, units, 1, dim), noise(seed + 1, units, 2, 5)
    rotation, _ = np.linalg.qr(noise(seed + 2, dim, 1, dim)[:, 0])
    order = np.random.default_rng(seed).permutation(units)
    changed = scale * x @ rotation + 7
    assert linear_cka(changed, x)[0, 0] == pytest.approx(1)
    assert linear_cka(changed[order], y[order]) == pytest.approx(linear_cka(x, y))
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x).T)
    assert (linear_cka(x, y) >= 0).all() and (linear_cka(x, y) <= 1).all()


def test_stretching_one_direction_does_matter() -> None:
    x = noise(0, 30, 1, 4)
    assert linear_cka(x * np.array([9.0, 1, 1, 1]), x)[0, 0] < 0.95


def test_chance_is_the_mean_over_shuffled_units() -> None:
    x, y = noise(3, 15, 2, 20), noise(4, 15, 1, 9)
    rng = np.random.default_rng(0)
    shuffled = np.mean([linear_cka(x[rng.permutation(15)], y) for _ in range(4000)], axis=0)
    assert by_chance(x, y) == pytest.approx(shuffled, abs=0.005)
    assert by_chance(x, y).min() > 0.4, "few units for many dimensions look alike whatever they say"


def test_a_constant_layer_has_no_similarity() -> None:
    x = noise(0, 10, 2, 3)
    x[:, 0] = 4.25
    found = linear_cka(x, x)
    assert np.isnan(found[0]).all() and np.isnan(found[:, 0]).all() and found[1, 1] == pytest.approx(1)
    assert np.isnan(by_chance(x, x)[0, 1])


def test_other_units_are_refused() -> None:
    with pytest.raises(ValueError, match="10 and 9 units"):
        linear_cka(noise(0, 10, 1, 3), noise(0, 9, 1, 3))
