"""torchaudio's bundles: every hidden state is the library's, including the first, and padding doesn't leak."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchaudio import models, pipelines

from superb_eval.errors import UserError
from upstreams import registry
from upstreams.contract.check import check, leakage, render
from upstreams.torchaudio import bundles

CONV = [(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2
TINY: dict[str, Any] = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": CONV,
    "extractor_conv_bias": False,
    "encoder_embed_dim": 32,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_ff_interm_features": 64,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 2,
    "aux_num_out": None,
    "encoder_projection_dropout": 0.1,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.05,
}
LARGE = {**TINY, "extractor_mode": "layer_norm", "extractor_conv_bias": True, "encoder_layer_norm_first": True}
WAVLM = {**TINY, "encoder_max_distance": 80, "encoder_num_buckets": 32}
KINDS = {"TINY_BASE": (TINY, "Wav2Vec2"), "TINY_LARGE": (LARGE, "Wav2Vec2"), "TINY_WAVLM": (WAVLM, "WavLM")}


@pytest.fixture(autouse=True)
def _tiny_bundles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name, (sizes, kind) in KINDS.items():
        bundle = pipelines.Wav2Vec2Bundle(f"{name}.pth", sizes, 16_000, "LARGE" in name, kind)
        monkeypatch.setattr(pipelines, name, bundle, raising=False)


def network(name: str) -> torch.nn.Module:
    sizes, kind = KINDS[name]
    torch.manual_seed(3)
    return {"Wav2Vec2": models.wav2vec2_model, "WavLM": models.wavlm_model}[kind](**sizes).eval()


@pytest.mark.parametrize("name", KINDS)
def test_every_hidden_state_is_the_librarys(name: str, tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    torch.save(network(name).state_dict(), tmp_path / "weights.pth")
    upstream = registry.load(f"torchaudio:{name}@{tmp_path / 'weights.pth'}")
    wav = noise(20_000)
    waveform = torch.nn.functional.layer_norm(wav, wav.shape) if name == "TINY_LARGE" else wav
    with torch.no_grad():
        ours = upstream([wav])["hidden_states"]
        model: Any = network(name)
        expected, _ = model.extract_features(waveform[None])
        first = model.encoder.transformer._preprocess(
            model.encoder.feature_projection(model.feature_extractor(waveform[None], None)[0])
        )
    assert len(ours) == 3 == upstream.card.layers
    for one, other in zip(ours, [first, *expected], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_first_state_is_where_huberts_is(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    """The same weights through `hubert@FILE`, which gives transformers' hidden states."""
    torch.save(network("TINY_BASE").state_dict(), tmp_path / "weights.pth")
    with torch.no_grad():
        one, other = (
            registry.load(address.format(tmp_path / "weights.pth"))([noise(16_000)])["hidden_states"][0]
            for address in ("torchaudio:TINY_BASE@{}", "hubert@{}#heads=2")
        )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_a_batch_equals_its_members(name: str) -> None:
    upstream = registry.load(f"torchaudio:{name}@random:5")
    assert leakage(upstream, (8_000, 30_000)) < 1e-5
    assert ("processed one by one" in " ".join(upstream.card.notes)) == (name == "TINY_WAVLM")


def test_it_keeps_the_contract() -> None:
    findings = check(registry.load("torchaudio:TINY_BASE@random"))
    assert all(finding.passed for finding in findings), render(findings)


def test_all_bundles_are_listed_and_seeded() -> None:
    assert {"HUBERT_BASE", "WAV2VEC2_BASE", "WAVLM_LARGE", "WAV2VEC2_XLSR53"} <= set(bundles())
    first, same, other = (registry.load(f"torchaudio:TINY_BASE@random:{s}").fingerprint() for s in (1, 1, 2))
    assert first == same != other


def test_malicious_pickles_are_refused(malicious: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="refused: this pickle needs more than tensors"):
        registry.load(f"torchaudio:TINY_BASE@{malicious[0]}")
    assert not malicious[1].exists()


def test_every_error_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04 cut off")

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    for address, message in {
        "torchaudio:HUBERT_BAS": r"no bundle 'HUBERT_BAS'\. Did you mean 'HUBERT_BASE'\?",
        "torchaudio:HUBERT_BASE@nowhere.pth": "no such file",
        f"torchaudio:TINY_BASE@{tmp_path / 'other.pth'}": "can't be loaded from .* Is it that bundle's own file",
        f"torchaudio:TINY_BASE@{tmp_path / 'torn.pth'}": "can't be loaded from .* Is it that bundle's own file",
        "torchaudio:HUBERT_BASE": "loaded from 'torchaudio:HUBERT_BASE': no network. Fetch them elsewhere and write "
        "torchaudio:HUBERT_BASE@FILE",
    }.items():
        with pytest.raises(UserError, match=message):
            registry.load(address)
