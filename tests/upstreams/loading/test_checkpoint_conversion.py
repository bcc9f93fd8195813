"""Other libraries' layouts: the hidden states of the library that defines the layout, every layer, from its files."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from superb_eval.errors import UserError
from tests.upstreams.fairseq import CONV, SIZES
from upstreams import registry, s3prl
from upstreams.base import Upstream
from upstreams.loading import checkpoint_conversion, weight_names

BASE = {
    **SIZES,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "final_dim": 768,
}
BASE |= {"conv_pos": 128, "conv_pos_groups": 16}
BASE_CONV = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"


def with_perturbed_vectors(model: nn.Module) -> nn.Module:
    """Give norms and biases, which begin as ones and zeros, other values, so that swapped weights would show."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Equal to 1e-5 of each layer's largest value: processors round sums of a thousand products differently."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * max(1.0, float(other.abs().max())))


def states(upstream: Any, wav: Tensor, key: str = "hidden_states") -> list[Tensor]:
    with torch.no_grad():
        feature = upstream([wav])[key]
    return list(feature) if isinstance(feature, (list, tuple)) else [feature]


def distiller(
    path: Path, sizes: dict[str, Any] = SIZES, conv: str = CONV, predicted: tuple[int, ...] = (4, 8, 12)
) -> Path:
    """Write a checkpoint as s3prl's runner does, with the training command and the optimiser's state in it."""
    s3prl.supply_missing_names()
    from s3prl.upstream.distiller.model import DistillerConfig, DistillerModel

    settings = {**sizes, "extractor_conv_feature_layers": conv, "out_layer_type": "expand-last"}
    settings |= {"n_tasks": len(predicted), "pred_layer_id": list(predicted), "task_emb_type": "expand-last"}
    torch.manual_seed(0)
    model = with_perturbed_vectors(DistillerModel(DistillerConfig(settings)))
    states = {"Distiller": model.state_dict(), "Config": {"distiller": settings}, "Step": 7}
    torch.save({**states, "Args": argparse.Namespace(upstream="distiller"), "Optimizer": {"state": {}}}, path)
    return path


def converted(path: Path, sizes: dict[str, Any] = SIZES, conv: str = CONV, **task: Any) -> Path:
    """Write a HuBERT as s3prl's converter does."""
    s3prl.supply_missing_names()
    from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig
    from s3prl.upstream.utils import merge_with_parent

    config = {**sizes, "label_rate": 50, "conv_feature_layers": conv}
    task = {"label_rate": 50, **task}
    torch.manual_seed(0)
    model = HubertModel(
        merge_with_parent(HubertConfig, config), merge_with_parent(HubertPretrainingConfig, task), [["a", "b"]]
    )
    content = {"task_cfg": task, "model_cfg": config, "model_weight": with_perturbed_vectors(model).state_dict()}
    torch.save({**content, "dictionaries_symbols": [["a", "b"]]}, path)
    return path


def torchaudio_model(path: Path, large: bool) -> tuple[Path, Any]:
    """Write the state dict of a HuBERT as torchaudio's bundles have it."""
    from torchaudio.models import wav2vec2_model

    torch.manual_seed(0)
    model = wav2vec2_model(
        extractor_mode="layer_norm" if large else "group_norm",
        extractor_conv_layer_config=[(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2,
        extractor_conv_bias=False,
        encoder_embed_dim=128,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=16,
        encoder_pos_conv_groups=4,
        encoder_num_layers=3,
        encoder_num_heads=2,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=96,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=large,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    )
    torch.save(with_perturbed_vectors(model).state_dict(), path)
    return path, model.eval()


@pytest.mark.parametrize("predicted", [(4, 8, 12), (4, 12), (12,)])
def test_s3prls_distiller(tmp_path: Path, noise: Callable[..., Tensor], predicted: tuple[int, ...]) -> None:
    check_distiller(distiller(tmp_path / "distiller.ckpt", predicted=predicted), noise(9_000), 3 + len(predicted))


@pytest.mark.slow
def test_s3prls_distiller_at_full_width(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    check_distiller(distiller(tmp_path / "distilhubert_ls960_4-8-12.ckpt", BASE, BASE_CONV), noise(16_000), 6)


def check_distiller(path: Path, wav: Tensor, count: int) -> None:
    """Compare with s3prl's own expert: layers, predictions, and the paper's feature."""
    theirs = registry.load(f"s3prl:distiller_local@{path}")
    without, with_heads = (registry.load(f"{name}@{path}") for name in ("distilhubert", "distilhubert_heads"))
    assert theirs.card.layers == with_heads.card.layers == count
    assert_close(states(with_heads, wav), states(theirs, wav))
    assert_close(states(without, wav)[1:], states(theirs, wav)[1:3])
    for upstream in (without, with_heads):
        assert_close(states(upstream, wav, "paper"), states(theirs, wav, "paper"))
        assert upstream.count_parameters() == upstream.card.parameters
    heads = with_heads.count_parameters() - without.count_parameters()
    width = without.card.width
    assert heads == (count - 3) * 2 * (width * width + width)


def test_s3prls_converted_hubert(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    path = converted(tmp_path / "hubert_base_ls960.pt")
    theirs, ours = registry.load(f"s3prl:hubert_local@{path}"), registry.load(f"hubert@{path}")
    assert ours.card.layers == 3
    assert_close(states(ours, noise(9_000)), states(theirs, noise(9_000)))


@pytest.mark.slow
def test_s3prls_converted_hubert_at_full_width(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    path = converted(tmp_path / "hubert.pt", {**BASE, "encoder_layers": 12}, BASE_CONV)
    theirs, ours = registry.load(f"s3prl:hubert_local@{path}"), registry.load(f"hubert@{path}")
    assert ours.card.parameters == 94_371_712
    assert_close(states(ours, noise(16_000)), states(theirs, noise(16_000)))


def test_s3prls_converted_large(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    """Pre-norm, layer norms in every convolution, and waveforms of unit variance."""
    sizes = {**SIZES, "layer_norm_first": True, "extractor_mode": "layer_norm", "conv_bias": True}
    path = converted(tmp_path / "hubert_large.pt", sizes, normalize=True)
    wav = 1e-3 * noise(9_000) + 0.1
    assert_close(states(registry.load(f"hubert@{path}"), wav), states(registry.load(f"s3prl:hubert_local@{path}"), wav))


def test_the_file_states_whether_waveforms_are_normalised(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    path, wav = converted(tmp_path / "odd.pt", normalize=True), noise(9_000) + 0.3
    assert_close(states(registry.load(f"hubert@{path}"), wav), states(registry.load(f"s3prl:hubert_local@{path}"), wav))


@pytest.mark.parametrize("large", [False, True])
def test_torchaudios_state_dicts(tmp_path: Path, noise: Callable[..., Tensor], large: bool) -> None:
    path, model = torchaudio_model(tmp_path / "hubert.pth", large)
    ours, wav = registry.load(f"hubert@{path}#heads=2"), noise(9_000)
    with torch.no_grad():
        # Large's bundle normalises waveforms outside of the network.
        waveform = nn.functional.layer_norm(wav, wav.shape) if large else wav
        theirs = model.extract_features(waveform[None])[0]
        last = model.encoder.transformer.layer_norm(theirs[-1]) if large else theirs[-1]
    # Torchaudio leaves hidden state 0 out, and the norm after the last layer of Large.
    assert_close(states(ours, wav)[1:], [*theirs[:-1], last])


def test_torchaudios_wavlm_names_the_address_that_opens_it(tmp_path: Path) -> None:
    from torchaudio.models import wavlm_base

    with torch.device("meta"):
        names = wavlm_base().state_dict()
    torch.save({name: torch.zeros(1) for name in names}, tmp_path / "wavlm.pth")
    with pytest.raises(UserError, match=r"is a WavLM of torchaudio. Load it with torchaudio:WAVLM_BASE@.*wavlm.pth"):
        registry.load(f"checkpoint:{tmp_path / 'wavlm.pth'}")


def test_torchaudios_older_names_of_weight_norm(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    """Its published files are older than the parametrisation that its code now uses."""
    path, _ = torchaudio_model(tmp_path / "new.pth", large=False)
    weights = torch.load(path, weights_only=True)
    for new, old in {
        "parametrizations.weight.original0": "weight_g",
        "parametrizations.weight.original1": "weight_v",
    }.items():
        weights = {name.replace(new, old): value for name, value in weights.items()}
    torch.save(weights, tmp_path / "old.pth")
    both = (registry.load(f"hubert@{tmp_path / name}#heads=2") for name in ("old.pth", "new.pth"))
    assert_close(*(states(upstream, noise(9_000)) for upstream in both))


@pytest.mark.parametrize(("name", "layers"), [("hubert", 12), ("distilhubert", 2)])
def test_hub_folders_of_transformers(tmp_path: Path, noise: Callable[..., Tensor], name: str, layers: int) -> None:
    """As the hub has them: a pickle of tensors, with weight norm's older names."""
    from transformers import HubertConfig, HubertModel

    small = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "conv_dim": (16,) * 7}
    torch.manual_seed(0)
    config = HubertConfig(**small, num_hidden_layers=layers, feat_proj_layer_norm=name == "hubert")
    model = with_perturbed_vectors(HubertModel(config)).eval()
    config.save_pretrained(tmp_path)
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    weights = model.state_dict()
    for new, before in old.items():
        weights = {key.replace(new, before): value for key, value in weights.items()}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    wav = noise(9_000)
    with torch.no_grad():
        theirs = model(wav[None], output_hidden_states=True).hidden_states
    assert_close(states(registry.load(f"{name}@{tmp_path}"), wav), list(theirs))


@pytest.mark.parametrize(
    "code", ["__import__('os').mkdir('PROOF')", "[(16, 10)]", "7", "[(16, 10, 5)", "[(1, 2, 3)] * '2'"]
)
def test_settings_are_never_run(tmp_path: Path, code: str) -> None:
    """s3prl passes this text to `eval`."""
    proof = tmp_path / "it-ran"
    path = converted(tmp_path / "hubert.pt")
    content = torch.load(path, weights_only=True)
    content["model_cfg"]["conv_feature_layers"] = code.replace("PROOF", str(proof))
    torch.save(content, path)
    with pytest.raises(UserError, match=r"hubert.pt: its convolutions are '.*Expected a list such as"):
        registry.load(f"hubert@{path}")
    assert not proof.exists()


def test_a_malicious_distiller_is_refused(tmp_path: Path, malicious_object: tuple[object, Path]) -> None:
    content = torch.load(distiller(tmp_path / "d.ckpt"), weights_only=False)
    torch.save({**content, "Optimizer": malicious_object[0]}, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match=r"bad.ckpt: refused: its pickle names posix.mkdir, .*none of it was run"):
        registry.load(f"distilhubert@{tmp_path / 'bad.ckpt'}")
    assert not malicious_object[1].exists()


@pytest.mark.parametrize(
    ("setting", "value"), [("attention_type", "sparse"), ("activation_fn", "relu"), ("layer_type", "conformer")]
)
def test_networks_that_transformers_does_not_support_are_refused(tmp_path: Path, setting: str, value: str) -> None:
    content = torch.load(distiller(tmp_path / "d.ckpt"), weights_only=False)
    content["Config"]["distiller"][setting] = value
    torch.save(content, tmp_path / "d.ckpt")
    with pytest.raises(UserError, match=f"d.ckpt: its {setting} is '{value}', and only '"):
        registry.load(f"distilhubert@{tmp_path / 'd.ckpt'}")


def test_weights_that_do_not_fit_their_settings_are_refused(tmp_path: Path) -> None:
    content = torch.load(distiller(tmp_path / "d.ckpt"), weights_only=False)
    content["Config"]["distiller"]["encoder_layers"] = 3
    torch.save(content, tmp_path / "d.ckpt")
    with pytest.raises(UserError, match=r"don't fit s3prl's distiller layout: 16 missing"):
        registry.load(f"distilhubert@{tmp_path / 'd.ckpt'}")


def test_transformers_own_names_are_unchanged() -> None:
    upstream: Upstream = registry.load("hubert_nano@random")
    weights = {name.removeprefix("model."): w for name, w in upstream.state_dict().items()}
    assert weight_names.to_transformers(weights).keys() == weights.keys()
    assert checkpoint_conversion.count_layers(weights) == 2


@pytest.mark.parametrize("name", ["hubert_nano", "hubert", "distilhubert"])
def test_sizes_are_inferred_from_weights(name: str) -> None:
    """Heads excepted where they are not 64 wide, as in the nano network."""
    upstream = registry.load(f"{name}@random")
    config = upstream.model.config  # type: ignore[union-attr]
    found = checkpoint_conversion.infer_config(
        {key.removeprefix("model."): w for key, w in upstream.state_dict().items()}
    )  # type: ignore[arg-type]
    if name == "hubert_nano":
        del found["num_attention_heads"]
    assert found == {key: type(value)(getattr(config, key)) for key, value in found.items()}
