"""The agreement of clusters and phones, and the effective rank, against other ways to compute them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from superb_eval.probing import phone_clusters


def test_the_agreement_is_the_textbooks() -> None:
    rng = np.random.default_rng(1)
    phones, clusters = rng.integers(0, 5, 400), rng.integers(0, 7, 400)
    clusters[phones == 2] = 3
    pnmi, phone_purity, cluster_purity = phone_clusters.agreement(phones, clusters)
    entropy = mutual_info_score(phones, phones)
    assert pnmi == pytest.approx(mutual_info_score(phones, clusters) / entropy)
    commonest = [np.bincount(phones[clusters == c]).max() for c in range(7)]
    assert phone_purity == pytest.approx(sum(commonest) / 400)
    assert cluster_purity == pytest.approx(sum(np.bincount(clusters[phones == p]).max() for p in range(5)) / 400)
    assert phone_clusters.agreement(phones, phones) == pytest.approx((1.0, 1.0, 1.0))


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_effective_rank_of_equal_singular_values_is_their_number(rank: int) -> None:
    rows, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((50, 8)))
    frames = (rows[:, :rank] @ np.eye(8)[:rank]).astype(np.float32)
    assert phone_clusters.effective_rank(frames) == pytest.approx(rank, rel=1e-3)
