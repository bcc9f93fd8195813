from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from superb_eval.data.padding import PaddedWavs, pad_wavs
from upstreams.loading import conv_frontend
from upstreams.loading.conv_frontend import ConvFrontend


def library(norm: str, bias: bool = False):  # type: ignore[no-untyped-def]
    from transformers import HubertConfig
    from transformers.models.hubert.modeling_hubert import HubertFeatureEncoder

    torch.manual_seed(0)
    config = HubertConfig(feat_extract_norm=norm, conv_bias=bias, conv_dim=(16, 24, 24, 24, 24, 24, 24))
    extractor = HubertFeatureEncoder(config).eval()
    for parameter in extractor.parameters():
        nn.init.normal_(parameter, std=0.3)
    return extractor


def waveforms(*lengths: int, offset: float = 0.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [offset + 0.1 * torch.randn(n, generator=generator) for n in lengths]


@pytest.fixture(params=["one by one", "together"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waveforms go as on a CPU, then as on a GPU."""
    if request.param == "together":
        monkeypatch.setattr(conv_frontend, "ONE_BY_ONE", frozenset())


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("norm", "bias"), [("group", False), ("group", True), ("layer", False), ("layer", True)])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_each_waveform_equals_transformers_on_it_alone(norm: str, bias: bool, offset: float) -> None:
    extractor = library(norm, bias)
    assert ConvFrontend.supports(extractor)
    ours = ConvFrontend(extractor.conv_layers)
    wavs = waveforms(400, 401, 719, 720, 5_000, 16_160, offset=offset)
    with torch.no_grad():
        found = ours(pad_wavs(wavs))
        for row, wav in zip(found, wavs, strict=True):
            expected = extractor(wav[None])[0]
            torch.testing.assert_close(row[:, : expected.shape[1]], expected, rtol=1e-4, atol=1e-4)
            assert bool((row[:, expected.shape[1] :] == 0).all()), "padding is zero"
        torch.testing.assert_close(ours(wavs[5][None]), extractor(wavs[5][None]))


@pytest.mark.usefixtures("device")
def test_further_padding_and_rows_change_nothing() -> None:
    """As on a grid of shapes."""
    ours, wavs = ConvFrontend(library("group").conv_layers), waveforms(400, 16_161, 3_999)
    plain = pad_wavs(wavs)
    samples = nn.functional.pad(plain.samples, (0, 20_560 - 16_161, 0, 1))  # 64 frames
    with torch.no_grad():
        expected, found = ours(plain), ours(PaddedWavs(samples, (*plain.lengths, 20_560)))
    assert found.shape == (4, 24, 64)
    torch.testing.assert_close(found[:3, :, : expected.shape[2]], expected, rtol=1e-5, atol=1e-5)
    assert bool((found[:3, :, expected.shape[2] :] == 0).all())
    assert bool(found.isfinite().all()), "silence has no variance"


@pytest.mark.usefixtures("device")
def test_gradients_are_the_librarys() -> None:
    extractor, wavs = library("group"), waveforms(2_000, 1_234)
    ours = ConvFrontend(extractor.conv_layers)
    gradients = []
    for outputs in ([ours(pad_wavs(wavs))], [extractor(wav[None]) for wav in wavs]):
        extractor.zero_grad()
        sum(output.square().sum() for output in outputs).backward()
        gradients.append([p.grad.clone() for p in extractor.parameters()])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


@pytest.mark.parametrize("by_library", [False, True])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_tiles_equal_the_whole(norm: str, by_library: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By products and by the library's convolution, with gradients off as in extraction."""
    extractor = library(norm, bias=True).requires_grad_(False)
    monkeypatch.setattr(conv_frontend, "TILE_FRAMES", 7)
    monkeypatch.setattr(conv_frontend, "_by_library", lambda weight: by_library)
    ours, wavs = ConvFrontend(extractor.conv_layers), waveforms(400, 2_640, 16_160, 9_999, offset=0.5)
    with torch.inference_mode():
        found = ours(pad_wavs(wavs))
        for row, wav in zip(found, wavs, strict=True):
            expected = extractor(wav[None])[0]
            torch.testing.assert_close(row[:, : expected.shape[1]], expected, rtol=1e-4, atol=1e-5)
    assert all((weights[0].dim() == 4) == by_library for weights in ours._matrices())


def test_the_library_convolves_in_float32_alone() -> None:
    extractor = library("group").requires_grad_(False)
    weight = extractor.conv_layers[1].conv.weight
    with torch.autocast("cpu", torch.bfloat16):
        assert not conv_frontend._by_library(weight)
    assert not conv_frontend._by_library(weight.to("meta"))


def test_frozen_kernels_are_cached_until_they_change() -> None:
    extractor, wavs = library("group").requires_grad_(False), waveforms(2_000)
    ours = ConvFrontend(extractor.conv_layers)
    with torch.inference_mode():
        before = ours(pad_wavs(wavs))
        assert ours._matrices()[0][0] is ours._matrices()[0][0]
    with torch.no_grad():
        extractor.conv_layers[3].conv.weight.mul_(2)
        assert not torch.allclose(ours(pad_wavs(wavs)), before)
        torch.testing.assert_close(ours(pad_wavs(wavs)), extractor(wavs[0][None]), rtol=1e-4, atol=1e-4)


def test_16_bits_are_near_and_the_waveform_is_not_rounded() -> None:
    extractor, wavs = library("group").requires_grad_(False), waveforms(16_000, offset=100.0)
    ours = ConvFrontend(extractor.conv_layers)
    with torch.inference_mode():
        exact = ours(pad_wavs(wavs))
        with torch.autocast("cpu", torch.bfloat16):
            rough = ours(pad_wavs(wavs))
    assert rough.dtype == torch.bfloat16
    assert 0 < float((rough.float() - exact).norm() / exact.norm()) < 0.02


def test_other_layers_are_left_to_the_library() -> None:
    assert not ConvFrontend.supports(nn.Linear(2, 2))
    extractor = library("group")
    extractor.conv_layers[2].conv.padding = (1,)
    assert not ConvFrontend.supports(extractor)
    mixed = library("group")
    mixed.conv_layers[0].layer_norm = nn.GroupNorm(4, 16)
    assert not ConvFrontend.supports(mixed), "a norm over groups of channels"
