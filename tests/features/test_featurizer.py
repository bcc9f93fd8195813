from __future__ import annotations

import pytest
import torch

from superb_eval.features.featurizer import Featurizer


def test_fresh_weights_are_uniform_and_give_the_plain_mean() -> None:
    hidden = torch.randn(4, 13, 8)
    featurizer = Featurizer(13)
    assert torch.allclose(featurizer.layer_weights(), torch.full((13,), 1 / 13))
    torch.testing.assert_close(featurizer(hidden), hidden.mean(dim=1))


def test_equals_s3prls_weighted_sum() -> None:
    hidden = torch.randn(4, 20, 5, 8)  # [batch, frames, layers, dim]
    featurizer = Featurizer(5)
    torch.nn.init.normal_(featurizer.weights)
    stacked = hidden.movedim(2, 0)
    # s3prl upstream/interfaces.py:Featurizer._weighted_sum
    weights = torch.softmax(featurizer.weights, dim=-1)
    expected = (weights.unsqueeze(-1) * stacked.reshape(5, -1)).sum(dim=0).view(*stacked.shape[1:])
    torch.testing.assert_close(featurizer(hidden), expected)


def test_one_layer_or_a_chosen_one_needs_no_weights() -> None:
    hidden = torch.randn(4, 3, 8)
    for featurizer, layer in ((Featurizer(3, layer=1), 1), (Featurizer(3, layer=-1), 2)):
        assert list(featurizer.parameters()) == []
        assert torch.equal(featurizer(hidden), hidden[:, layer])
    assert list(Featurizer(1).parameters()) == []
    with pytest.raises(IndexError, match="layer 3 of 3"):
        Featurizer(3, layer=3)
