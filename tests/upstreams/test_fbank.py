"""FBANK is s3prl's FBANK, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from superb_eval.errors import UserError
from upstreams import registry
from upstreams.fbank import CARDS, Fbank


@pytest.mark.parametrize("samples", [800, 15_999, 16_000, 16_161, 48_001])
@pytest.mark.parametrize(("ours", "theirs"), [("fbank", "s3prl:fbank"), ("fbank_nonorm", "s3prl:fbank_no_cmvn")])
def test_equals_s3prl_bit_for_bit(ours: str, theirs: str, samples: int, noise: Callable[..., Tensor]) -> None:
    wav = noise(samples)
    assert torch.equal(registry.load(ours)([wav])["hidden_states"][0], registry.load(theirs)([wav])["hidden_states"][0])


@settings(max_examples=10)
@given(st.lists(st.integers(800, 9_000), min_size=1, max_size=4))
def test_a_batch_equals_its_members(lengths: list[int]) -> None:
    fbank = Fbank(CARDS[0])
    wavs = [torch.randn(samples, generator=torch.Generator().manual_seed(samples)) for samples in lengths]
    batch = fbank(wavs)["hidden_states"][0]
    for row, wav in zip(batch, wavs, strict=True):
        assert torch.equal(row[: fbank.frames(len(wav))], fbank([wav])["hidden_states"][0][0])


@settings(max_examples=30)
@given(st.integers(400, 40_000))
def test_frames_are_as_computed(samples: int) -> None:
    fbank = Fbank(CARDS[1])
    assert fbank([torch.zeros(samples)])["hidden_states"][0].shape == (1, fbank.frames(samples), 240)


def test_the_mean_over_time_is_zero_with_normalisation_only(noise: Callable[..., Tensor]) -> None:
    wav = noise(16_000)
    assert registry.load("fbank")([wav])["hidden_states"][0].mean(dim=1).abs().max() < 1e-4
    assert registry.load("fbank_nonorm")([wav])["hidden_states"][0].mean(dim=1).abs().max() > 1


@pytest.mark.parametrize("address", ["fbank@random", "fbank@weights.pt"])
def test_weights_are_refused(address: str) -> None:
    with pytest.raises(UserError, match="fbank has no weights"):
        registry.load(address)


def test_less_than_a_window_is_refused() -> None:
    with pytest.raises(UserError, match="399 samples are too short"):
        registry.load("fbank")([torch.zeros(16_000), torch.zeros(399)])
