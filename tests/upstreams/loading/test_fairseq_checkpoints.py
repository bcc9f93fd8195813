"""fairseq's and Microsoft's files: the hidden states of their own networks, every layer, to 1e-5."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from superb_eval.errors import UserError
from tests.upstreams import fairseq
from upstreams import checkpoint, registry
from upstreams.base import Upstream

DICTIONARY = "fairseq.data.dictionary.Dictionary"
SIZES = {"Base": {}, "Large": fairseq.LARGE}
STORED = {"Namespace": fairseq.as_namespace, "dictionary": fairseq.as_dictionary, "omegaconf": fairseq.as_omegaconf}
FORMATS = {"zip": {}, "old": {"_use_new_zipfile_serialization": False}}
WAVLM = {"relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 32, "max_distance": 80}


def ours(path: object, wav: Tensor, family: str = "checkpoint:") -> list[Tensor]:
    with torch.no_grad():
        return list(registry.load(f"{family}{path}")([wav])["hidden_states"])


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    """Equal to 1e-5 of each layer's largest value."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("size", SIZES)
def test_hubert(tmp_path: Path, noise: Callable[..., Tensor], size: str, stored: str, form: str) -> None:
    settings, large = fairseq.settings(**SIZES[size]), size == "Large"
    model = fairseq.hubert(settings)
    path = fairseq.save(tmp_path / "hubert.pt", model, STORED[stored](settings, large), **FORMATS[form])
    wav = noise(9_000) + 0.1
    assert_equal(ours(path, wav), fairseq.hidden_states(model, wav, normalise=large))
    found = checkpoint.describe(str(path))
    assert (found.layout, found.architecture, found.normalise) == ("fairseq's HuBERT", "HuBERT", large)
    assert (found.layers, found.width, found.prefix) == (2, 32, "model.")
    assert found.left_out == ("final_proj", "label_embs_concat")
    assert DICTIONARY in found.foreign
    assert found.notes == ()


def test_the_last_hidden_state_of_large_is_after_the_final_norm(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    """As in s3prl; `hidden_states` of transformers 5 end before that norm."""
    settings = fairseq.settings(**fairseq.LARGE)
    path = fairseq.save(tmp_path / "x.pt", fairseq.hubert(settings), fairseq.as_dictionary(settings))
    upstream: Any = registry.load(f"checkpoint:{path}")
    found = ours(path, noise(9_000))
    with torch.no_grad():
        theirs = upstream.model(noise(9_000)[None], output_hidden_states=True)
        normed = upstream.model.encoder.layer_norm(theirs.hidden_states[-1])
    assert_equal(found[:-1], list(theirs.hidden_states[:-1]))
    assert_equal(found[-1:], [normed])
    assert float((found[-1] - theirs.hidden_states[-1]).abs().max()) > 0.1


@pytest.mark.parametrize("samples", [8_000, 8_320, 9_999])
@pytest.mark.parametrize("size", SIZES)
def test_wav2vec2(tmp_path: Path, noise: Callable[..., Tensor], size: str, samples: int) -> None:
    """fairseq adds a masked frame where their number is odd, which changes nothing."""
    settings, large = fairseq.settings(**SIZES[size]), size == "Large"
    model = fairseq.wav2vec2(settings)
    path = fairseq.save(tmp_path / "w.pt", model, fairseq.as_omegaconf(settings, large, "wav2vec2"))
    wav = noise(samples) + 0.1
    assert_equal(ours(path, wav), fairseq.hidden_states(model, wav, normalise=large))
    found = checkpoint.describe(str(path))
    assert (found.layout, found.architecture) == ("fairseq's wav2vec 2.0", "wav2vec 2.0")
    assert found.left_out == ("final_proj", "project_q", "quantizer")


@pytest.mark.parametrize("size", SIZES)
def test_wavlm(tmp_path: Path, noise: Callable[..., Tensor], size: str) -> None:
    settings = fairseq.settings(**SIZES[size], **WAVLM, normalize=size == "Large")
    model = fairseq.wavlm(settings)
    torch.save({"cfg": settings, "model": model.state_dict()}, tmp_path / "WavLM.pt")
    wav = noise(40_000) + 0.1  # 124 frames, so that distances beyond the exact buckets count
    expected = fairseq.hidden_states(model, wav, normalise=size == "Large")
    assert_equal(ours(tmp_path / "WavLM.pt", wav), expected)
    found = checkpoint.describe(str(tmp_path / "WavLM.pt"))
    assert (found.layout, found.architecture, found.normalise) == ("WavLM's own WavLM", "WavLM", size == "Large")
    with pytest.raises(UserError, match=r"WavLM.pt: is a WavLM, not a HuBERT. Load it with checkpoint:"):
        registry.load(f"hubert@{tmp_path / 'WavLM.pt'}")


def fine_tuned(model: nn.Module) -> nn.Module:
    """Return a network under the names of fairseq's `Wav2VecCtc`, with its head."""
    encoder = nn.Module()
    encoder.w2v_model, encoder.proj = model, nn.Linear(32, 5)
    outer = nn.Module()
    outer.w2v_encoder = encoder
    return outer


@pytest.mark.parametrize("stored", ["Namespace", "dictionary", "omegaconf", "a Namespace in a dictionary"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
def test_fine_tuned(tmp_path: Path, noise: Callable[..., Tensor], kind: str, size: str, stored: str) -> None:
    """The settings of the encoder lie in `w2v_args`, those outside are of fine-tuning; the CTC head is left out."""
    from omegaconf import OmegaConf

    settings, large = fairseq.settings(**SIZES[size]), size == "Large"
    model = {"hubert": fairseq.hubert, "wav2vec2": fairseq.wav2vec2}[kind](settings)
    inner = fairseq.as_dictionary(settings, large, kind)["cfg"]
    outer = {"_name": f"{kind}_ctc", "w2v_path": "x.pt", "w2v_args": inner, "layerdrop": 0.1, "dropout": 0.5}
    cfg: Any = {"model": outer, "task": {"_name": "audio_finetuning", "normalize": large}}
    if "Namespace" in stored:
        arch = {"hubert": "hubert", "wav2vec2": "wav2vec2"}[kind]
        outer["w2v_args"] = argparse.Namespace(**settings, normalize=large, arch=arch)
    if stored == "omegaconf":
        cfg = OmegaConf.create(cfg)
    configuration = {"args": argparse.Namespace(**outer, normalize=large)} if stored == "Namespace" else {"cfg": cfg}
    path = fairseq.save(tmp_path / "ctc.pt", fine_tuned(model), configuration)
    wav = noise(9_000) + 0.1
    assert_equal(ours(path, wav), fairseq.hidden_states(model, wav, normalise=large))
    found = checkpoint.describe(str(path))
    name = {"hubert": "HuBERT", "wav2vec2": "wav2vec 2.0"}[kind]
    assert (found.layout, found.prefix) == (f"fairseq's fine-tuned {name}", "model.w2v_encoder.w2v_model.")


def test_fine_tuned_without_the_encoders_settings_is_refused(tmp_path: Path) -> None:
    settings = fairseq.settings()
    path = fairseq.save(
        tmp_path / "ctc.pt", fine_tuned(fairseq.hubert(settings)), fairseq.as_dictionary({"w2v_path": "x.pt"})
    )
    with pytest.raises(UserError, match=r"ctc.pt: is fine-tuned, and has no settings of its encoder \(w2v_args\)"):
        registry.load(f"checkpoint:{path}")


def test_s3prls_converted_wav2vec2(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    settings = fairseq.settings(quantize_targets=True, latent_vars=4)
    model = fairseq.wav2vec2(settings)
    content = {"task_cfg": {"normalize": False}, "model_cfg": settings, "model_weight": model.state_dict()}
    torch.save(content, tmp_path / "wav2vec2_base.pt")
    assert_equal(ours(tmp_path / "wav2vec2_base.pt", noise(9_000)), fairseq.hidden_states(model, noise(9_000)))
    found = checkpoint.describe(str(tmp_path / "wav2vec2_base.pt"))
    assert found.layout == "s3prl's converted wav2vec 2.0"


@pytest.mark.parametrize("family", ["hubert@", "distilhubert@", "checkpoint:"])
def test_every_address_of_a_file_gives_the_same(tmp_path: Path, noise: Callable[..., Tensor], family: str) -> None:
    settings = fairseq.settings()
    model = fairseq.hubert(settings)
    path = fairseq.save(tmp_path / "hubert.pt", model, fairseq.as_dictionary(settings))
    assert_equal(ours(path, noise(9_000), family), fairseq.hidden_states(model, noise(9_000)))


def test_convolutions_as_wide_as_the_transformer_need_no_projection(
    tmp_path: Path, noise: Callable[..., Tensor]
) -> None:
    conv = "[(32, 10, 5)] + [(32, 3, 2)] * 4 + [(32, 2, 2)] * 2"
    settings = fairseq.settings(conv_feature_layers=conv)
    model = fairseq.hubert(settings)
    assert "post_extract_proj.weight" not in model.state_dict()
    path = fairseq.save(tmp_path / "hubert.pt", model, fairseq.as_dictionary(settings))
    assert_equal(ours(path, noise(9_000)), fairseq.hidden_states(model, noise(9_000)))


def test_settings_that_are_members_of_an_enumeration(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    settings = fairseq.settings(**fairseq.LARGE)
    model = fairseq.hubert(settings)
    with fairseq.fairseq_package() as package:
        stored = {**settings, "extractor_mode": package.Choices("layer_norm")}
        torch.save({**fairseq.as_dictionary(stored), "model": model.state_dict()}, tmp_path / "x.pt")
    assert_equal(ours(tmp_path / "x.pt", noise(9_000)), fairseq.hidden_states(model, noise(9_000)))


class BatchNormPosition(nn.Sequential):
    """fairseq's positional convolution with `conv_pos_batch_norm`: a batch norm, then a convolution without norm."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        norm = nn.BatchNorm1d(32)
        norm.running_mean.copy_(0.1 * torch.randn(32, generator=generator))  # type: ignore[union-attr]
        norm.running_var.copy_(1 + torch.rand(32, generator=generator))  # type: ignore[union-attr]
        super().__init__(norm, nn.Conv1d(32, 32, 16, padding=8, groups=2))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(super().forward(x)[:, :, :-1])


def test_batch_norm_in_the_positions(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    """As in mHuBERT-147."""
    settings = fairseq.settings(conv_pos_batch_norm=True)
    model: Any = fairseq.hubert(settings)
    model.encoder.pos_conv = fairseq.perturb_vectors(BatchNormPosition())
    path = fairseq.save(tmp_path / "mhubert.pt", model, fairseq.as_dictionary(settings))
    assert_equal(ours(path, noise(9_000)), fairseq.hidden_states(model, noise(9_000)))
    upstream: Any = registry.load(f"checkpoint:{path}")
    assert upstream.model.config.conv_pos_batch_norm is True


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2", "wavlm"])
@pytest.mark.parametrize("size", SIZES)
def test_a_folder_of_transformers_has_the_same_fingerprint(
    tmp_path: Path, noise: Callable[..., Tensor], kind: str, size: str
) -> None:
    """So that features are shared between both."""
    large = size == "Large"
    settings = fairseq.settings(**SIZES[size], **(WAVLM if kind == "wavlm" else {}), normalize=large)
    model = {"hubert": fairseq.hubert, "wav2vec2": fairseq.wav2vec2, "wavlm": fairseq.wavlm}[kind](settings)
    stored = {"cfg": settings} if kind == "wavlm" else fairseq.as_dictionary(settings, large, kind)
    path = fairseq.save(tmp_path / "x.pt", model, stored)
    upstream: Any = registry.load(f"checkpoint:{path}")
    upstream.model.feature_extractor.requires_grad_(False)
    upstream.model.save_pretrained(tmp_path / "folder")
    (tmp_path / "folder/preprocessor_config.json").write_text(f'{{"do_normalize": {str(large).lower()}}}')
    folder = registry.load(f"hf:{tmp_path / 'folder'}")
    assert folder.identity() == upstream.identity()
    assert_equal(ours(path, noise(9_000)), ours(tmp_path / "folder", noise(9_000), "hf:"))


def test_half_precision_is_opened_as_single(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    settings = fairseq.settings()
    for dtype in (torch.float16, torch.bfloat16):
        model = fairseq.hubert(settings).to(dtype)
        path = fairseq.save(tmp_path / "half.pt", model, fairseq.as_dictionary(settings))
        upstream: Any = registry.load(f"checkpoint:{path}")
        assert {p.dtype for p in upstream.model.parameters()} == {torch.float32}
        assert_equal(ours(path, noise(9_000)), fairseq.hidden_states(model.float(), noise(9_000)))


def test_random_weights_of_a_files_network(tmp_path: Path) -> None:
    settings = fairseq.settings()
    path = fairseq.save(tmp_path / "x.pt", fairseq.hubert(settings), fairseq.as_dictionary(settings))
    stored, first, again, other = (
        registry.load(f"checkpoint:{path}{seed}") for seed in ("", "@random", "@random:0", "@random:1")
    )
    prints = [upstream.fingerprint() for upstream in (stored, first, again, other)]
    assert prints[1] == prints[2]
    assert len(set(prints)) == 3
    assert replace(first.card, name="") == replace(stored.card, name="")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hubert", "wav2vec2", "wavlm"])
@pytest.mark.parametrize("size", SIZES)
def test_at_full_width(tmp_path: Path, noise: Callable[..., Tensor], kind: str, size: str) -> None:
    large: dict[str, Any] = {"encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 4096}
    large |= {"encoder_attention_heads": 16, "final_dim": 768, **fairseq.LARGE}
    settings: dict[str, Any] = {
        "label_rate": 50.0,
        "encoder_layers": 2,
        "final_dim": 256,
        **(large if size == "Large" else {}),
    }
    settings |= {"relative_position_embedding": True, "gru_rel_pos": True} if kind == "wavlm" else {}
    settings["max_distance"] = 800
    model = {"hubert": fairseq.hubert, "wav2vec2": fairseq.wav2vec2, "wavlm": fairseq.wavlm}[kind](settings)
    stored = {"cfg": settings} if kind == "wavlm" else fairseq.as_dictionary(settings, name=kind)
    path = fairseq.save(tmp_path / "x.pt", model, stored)
    assert_equal(ours(path, noise(16_000)), fairseq.hidden_states(model, noise(16_000)))


def test_the_upstream_is_batch_invariant(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    settings = fairseq.settings()
    path = fairseq.save(tmp_path / "x.pt", fairseq.hubert(settings), fairseq.as_dictionary(settings))
    upstream: Upstream = registry.load(f"checkpoint:{path}")
    short, long = noise(8_000), noise(20_000, seed=1)
    with torch.no_grad():
        both, alone = upstream([short, long])["hidden_states"], upstream([short])["hidden_states"]
    for one, other in zip(both, alone, strict=True):
        torch.testing.assert_close(one[:1, : other.shape[1]], other, rtol=0, atol=1e-5)
