"""SpecAugment against s3prl's, draw by draw."""

from __future__ import annotations

import pytest
import torch

from downstreams.nets.specaug import SpecAugment
from downstreams.task_types.ctc import SpecAugmentSettings

LENGTHS = torch.tensor([90, 11, 10, 1, 47])


def batch(dim: int) -> torch.Tensor:
    torch.manual_seed(0)
    features = torch.randn(len(LENGTHS), 90, dim)
    for row, n in zip(features, LENGTHS.tolist(), strict=True):
        row[n:] = 0
    return features


@pytest.mark.parametrize("dim", [80, 30])
@pytest.mark.parametrize("seed", range(10))
def test_the_same_seed_gives_s3prls_features(seed: int, dim: int) -> None:
    from s3prl.downstream.specaug import SpecAug

    theirs = SpecAug(
        time_warp_window=5,
        freq_mask_width_range=(0, 50),
        num_freq_mask=4,
        time_mask_width_range=(0, 40),
        num_time_mask=2,
    )
    features = batch(dim)
    torch.manual_seed(seed)
    expected, _ = theirs([row[:n].clone() for row, n in zip(features, LENGTHS.tolist(), strict=True)])
    torch.manual_seed(seed)
    actual = SpecAugment(SpecAugmentSettings())(features, LENGTHS)
    assert actual.shape == features.shape
    for row, other, n in zip(actual, expected, LENGTHS.tolist(), strict=True):
        torch.testing.assert_close(row[:n], other, rtol=1e-6, atol=3e-6)


def test_nothing_is_changed_where_all_is_off() -> None:
    off = SpecAugment(SpecAugmentSettings(warp=0, dim_masks=0, time_masks=0))
    assert torch.equal(off(batch(8), LENGTHS), batch(8))


def test_gradients_pass_where_nothing_is_masked() -> None:
    features = batch(60).requires_grad_()
    SpecAugment(SpecAugmentSettings())(features, LENGTHS).sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all() and 0 < (features.grad != 0).float().mean() < 1
