"""Padded batches: the operations of a forward pass don't depend on the number of clips, nothing reads from the device,
and features equal those of the clips one by one, also where the shape comes from a grid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from superb_eval.data.padding import PaddedWavs, grid_frames, pad_wavs
from tests.operations import Operations
from tests.upstreams import configs
from upstreams import distilhubert, registry
from upstreams.hubert import Hubert
from upstreams.loading import conv_frontend

PLAIN_SUMS = torch.backends.cpu.get_cpu_capability() == "DEFAULT"
"""Whether torch's kernels use no vector instructions."""

KINDS = ["hubert", "large", "wavlm", "data2vec", "heads"]


def upstream(kind: str) -> Hubert:
    from transformers import Data2VecAudioConfig, Data2VecAudioModel, HubertConfig, HubertModel, WavLMConfig, WavLMModel

    torch.manual_seed(0)
    card = registry.card("hubert")
    if kind == "heads":
        heads = distilhubert.Heads(32, 3, 32)
        network = HubertModel(HubertConfig(**configs.TINY, feat_proj_layer_norm=False))
        return distilhubert.DistilHubertWithHeads(card, network, heads, "random").eval().requires_grad_(False)
    networks: dict[str, Any] = {
        "hubert": lambda: HubertModel(HubertConfig(**configs.TINY)),
        "large": lambda: HubertModel(HubertConfig(**configs.TINY, **configs.LARGE)),
        "wavlm": lambda: WavLMModel(WavLMConfig(**configs.TINY, num_buckets=16)),
        "data2vec": lambda: Data2VecAudioModel(Data2VecAudioConfig(**{**configs.TINY, "conv_pos_kernel_size": 9})),
    }
    return Hubert(card, networks[kind]()).eval().requires_grad_(False)


def waveforms(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [0.02 + 0.1 * torch.randn(n, generator=generator) for n in lengths]


def on_grid(wavs: list[Tensor]) -> PaddedWavs:
    """Return a batch of a longer padded length, with an empty row, as extraction and training make them for a GPU."""
    plain = pad_wavs(wavs)
    samples = 320 * grid_frames(max(plain.lengths) // 320) + 80
    wider = torch.nn.functional.pad(plain.samples, (0, samples - plain.samples.shape[1], 0, 1))
    return PaddedWavs(wider, (*plain.lengths, samples))


@pytest.fixture
def _together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The front end takes a whole batch, as on a GPU."""
    monkeypatch.setattr(conv_frontend, "ONE_BY_ONE", frozenset())


@pytest.mark.usefixtures("_together")
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_has_as_many_operations_with_any_number_of_clips(kind: str) -> None:
    network, counts = upstream(kind), []
    network(waveforms(8_000))  # kernels are cached
    for clips in (8, 64):
        lengths = [160_000 // clips * (3 + k % 3) // 4 for k in range(clips)]  # as many seconds in sum
        batch = pad_wavs(waveforms(*lengths))
        assert len({network.frames(length) for length in batch.lengths}) > 1, "masks are used"
        with torch.inference_mode(), Operations() as operations:
            network.forward_padded(batch)
        counts.append(operations.count)
    assert counts[0] == counts[1]


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="a CPU-only torch simulates no GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_needs_nothing_of_the_host_but_lengths(kind: str) -> None:
    """On tensors of a GPU without values: one of the host among them is an error, and so is reading a value."""
    lengths = on_grid(waveforms(3_000, 8_000)).lengths
    with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
        network = upstream(kind).requires_grad_()  # frozen kernels are cached by their address
        batch = PaddedWavs(torch.zeros(3, max(lengths)), lengths)
        with Operations():  # a number of the host may be written into a tensor of the GPU, and is waited for
            states = network.forward_padded(batch)["hidden_states"]
    assert all(state.device.type == "cuda" and state.shape == (3, 32, 32) for state in states)


@pytest.mark.parametrize("kind", KINDS)
def test_features_equal_those_of_the_clips_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, wavs = upstream(kind), waveforms(8_000, 720, 12_345, 400)
    with torch.inference_mode():
        alone = [network([wav])["hidden_states"] for wav in wavs]
        one_by_one = network(wavs)["hidden_states"]
        monkeypatch.setattr(conv_frontend, "ONE_BY_ONE", frozenset())
        outputs = [one_by_one, network(wavs)["hidden_states"], network.forward_padded(on_grid(wavs))["hidden_states"]]
    for states in outputs:
        assert all(bool(state.isfinite().all()) for state in states)
        for k, single in enumerate(alone):
            for state, expected in zip(states, single, strict=True):
                # Sums without vector instructions round more, and with a layer's largest value.
                rtol, atol = (0.0, 1e-5 * float(expected.abs().max())) if PLAIN_SUMS else (1e-5, 1e-5)
                torch.testing.assert_close(state[k, : expected.shape[1]], expected[0], rtol=rtol, atol=atol)


def test_an_upstream_that_overrides_forward_alone_is_not_padded_freely() -> None:
    class Own(Hubert):
        def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
            return super().forward([2 * wav for wav in wavs])

    assert upstream("hubert").padding_invariant
    assert upstream("heads").padding_invariant
    assert not Own(registry.card("hubert"), upstream("hubert").model).padding_invariant
    assert not registry.load("hubert_padded@random").padding_invariant
    assert not registry.load("fbank").padding_invariant
