from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from upstreams.loading.positional_conv import PositionalConv, library_convolutions


def library(taps: int, groups: int = 4, **settings: Any) -> Any:
    from transformers import HubertConfig
    from transformers.models.hubert.modeling_hubert import HubertPositionalConvEmbedding

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_conv_pos_embeddings": taps, "num_conv_pos_embedding_groups": groups}
    embedding = HubertPositionalConvEmbedding(HubertConfig(**sizes, **settings)).eval()
    nn.init.normal_(embedding.conv.bias)
    return embedding.requires_grad_(False)


def hidden_states(batch: int, frames: int) -> Tensor:
    return torch.randn(batch, frames, 32, generator=torch.Generator().manual_seed(1))


def spectra_used(ours: PositionalConv) -> bool:
    return ours._cached_spectra[0] is not None


@pytest.mark.parametrize("taps", [1, 2, 5, 16, 128])
@pytest.mark.parametrize("frames", [1, 17, 129, 300])
def test_spectra_equal_the_librarys_convolution(taps: int, frames: int) -> None:
    embedding = library(taps)
    assert PositionalConv.supports(embedding)
    ours, hidden = PositionalConv(embedding), hidden_states(3, frames)
    with torch.inference_mode():
        torch.testing.assert_close(ours(hidden), embedding(hidden), rtol=1e-5, atol=1e-5)
    assert spectra_used(ours)
    assert ours.state_dict().keys() == embedding.state_dict().keys()


def test_an_utterance_does_not_depend_on_its_batch() -> None:
    ours, hidden = PositionalConv(library(16)), hidden_states(2, 90)
    hidden[0, 40:] = 0  # padded
    with torch.inference_mode():
        together, alone = ours(hidden)[:1, :40], ours(hidden[:1, :40])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)


def test_spectra_are_cached_until_a_weight_changes() -> None:
    embedding, hidden = library(16), hidden_states(1, 20)
    ours = PositionalConv(embedding)
    with torch.inference_mode():
        before = ours(hidden)
        cached = ours._spectra()
        assert ours._spectra() is cached
    with torch.no_grad():
        embedding.conv.parametrizations.weight.original0.mul_(2)
        assert not torch.allclose(ours(hidden), before)
        torch.testing.assert_close(ours(hidden), embedding(hidden), rtol=1e-5, atol=1e-5)


def test_training_16_bits_and_counts_use_the_library() -> None:
    embedding, hidden = library(16), hidden_states(2, 20)
    ours = PositionalConv(embedding)
    expected = embedding(hidden)
    torch.testing.assert_close(ours(hidden.clone().requires_grad_()), expected, rtol=0, atol=0)
    with torch.no_grad(), library_convolutions(ours):
        torch.testing.assert_close(ours(hidden), expected, rtol=0, atol=0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert ours(hidden).dtype == torch.bfloat16
    assert not spectra_used(ours)
    with torch.no_grad():
        ours(hidden)
    assert spectra_used(ours)


def test_other_embeddings_are_left_to_the_library() -> None:
    assert not PositionalConv.supports(nn.Linear(2, 2))
    assert not PositionalConv.supports(library(16, conv_pos_batch_norm=True)), "its padding hook belongs to the library"
    dilated = library(16)
    dilated.conv.dilation = (2,)
    assert not PositionalConv.supports(dilated)
