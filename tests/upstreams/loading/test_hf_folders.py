"""Folders in transformers' layout: shards, prefixes, heads, and what is missing is named; no weight is ever random."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from superb_eval.errors import UserError
from tests.upstreams.configs import LARGE, TINY
from upstreams import registry
from upstreams.loading.network_parts import describe_weights

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return transformers.HubertModel(transformers.HubertConfig(**TINY))


@pytest.fixture(scope="module")
def whole(model: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the fingerprint of the network's features, from one file of weights."""
    folder = tmp_path_factory.mktemp("whole")
    model.save_pretrained(folder)
    return registry.load(f"hf:{folder}").fingerprint()


def save(model: Any, folder: Path, change: Callable[[Weights], Weights] = dict) -> Path:
    """Save a network, its weights changed."""
    model.save_pretrained(folder)
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def save_pickled_shards(model: nn.Module, folder: Path) -> Path:
    """Save a network as transformers 4 did: two pickles and an index."""
    save(model, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"pytorch_model-0000{1 + k % 2}-of-00002.bin" for k, name in enumerate(sorted(weights))}
    for shard in set(places.values()):
        torch.save({name: weights[name] for name in weights if places[name] == shard}, folder / shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: weight for name, weight in weights.items() if part not in name}


def under(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: weight for name, weight in weights.items()}


def older_names(weights: Weights) -> Weights:
    return {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): weight
        for name, weight in weights.items()
    }


def test_shards_are_one_network(model: Any, whole: str, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "safe", max_shard_size="20KB")
    assert len(list((tmp_path / "safe").glob("model-*-of-*.safetensors"))) > 2
    pickled = save_pickled_shards(model, tmp_path / "pickled")
    assert registry.load(f"hf:{tmp_path / 'safe'}").fingerprint() == whole
    assert registry.load(f"hf:{pickled}").fingerprint() == whole
    assert registry.load(f"hubert@{pickled}").fingerprint() == whole


@pytest.mark.parametrize("pickled", [False, True])
def test_a_missing_shard_is_named(pickled: bool, model: Any, tmp_path: Path) -> None:
    if pickled:
        save_pickled_shards(model, tmp_path)
    else:
        model.save_pretrained(tmp_path, max_shard_size="20KB")
    shard = sorted(path.name for path in tmp_path.glob("*-00002-of-*"))[0]
    (tmp_path / shard).unlink()
    with pytest.raises(UserError, match=rf"index.json names \d shards, of which \d are there: {shard} is missing"):
        registry.load(f"hf:{tmp_path}")


def test_shards_need_their_index(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match="model.safetensors.index.json: has no weight_map"):
        registry.load(f"hf:{tmp_path}")
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match="shards come without model.safetensors.index.json"):
        registry.load(f"hf:{tmp_path}")


def test_a_shard_that_would_run_code_is_refused(model: Any, tmp_path: Path, malicious: tuple[Path, Path]) -> None:
    folder = save_pickled_shards(model, tmp_path / "folder")
    malicious[0].rename(folder / "pytorch_model-00002-of-00002.bin")
    with pytest.raises(UserError, match="refused: this pickle needs more than tensors"):
        registry.load(f"hf:{folder}")
    assert not malicious[1].exists()


@pytest.mark.parametrize("prefix", ["model.", "module.", "hubert.", "encoder.", "module.hubert.", "_orig_mod.model."])
def test_a_prefix_is_stripped(prefix: str, model: Any, whole: str, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    assert registry.load(f"hf:{save(model, tmp_path, under(prefix))}").fingerprint() == whole
    assert torch.equal(torch.get_rng_state(), state)


def test_several_networks_in_one_folder_are_refused(model: Any, tmp_path: Path) -> None:
    folder = save(
        model, tmp_path, lambda weights: {**under("student.")(weights), **_copies(under("teacher.")(weights))}
    )
    with pytest.raises(UserError, match=r"holds several networks, whose weights begin with 'student\.', 'teacher\.'"):
        registry.load(f"hf:{folder}")


def _copies(weights: Weights) -> Weights:
    return {name: weight.clone() for name, weight in weights.items()}


@pytest.mark.parametrize("change", [older_names, without("masked_spec_embed")])
def test_older_names_and_an_absent_mask_are_the_same_network(
    change: Callable[[Weights], Weights], model: Any, whole: str, tmp_path: Path
) -> None:
    assert registry.load(f"hf:{save(model, tmp_path, change)}").fingerprint() == whole


@pytest.mark.parametrize("kind", ["ForCTC", "ForSequenceClassification"])
@pytest.mark.parametrize("name", ["Hubert", "Wav2Vec2", "WavLM"])
def test_the_head_of_a_fine_tuned_network_is_left_out(name: str, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**TINY, vocab_size=32)
    tuned = getattr(transformers, name + kind)(config)
    tuned.save_pretrained(tmp_path / "tuned")
    getattr(tuned, tuned.base_model_prefix).save_pretrained(tmp_path / "encoder")
    first, second = (registry.load(f"hf:{tmp_path / folder}") for folder in ("tuned", "encoder"))
    assert first.fingerprint() == second.fingerprint()
    assert first.card.parameters == second.card.parameters


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(dtype: torch.dtype, model: Any, tmp_path: Path) -> None:
    def rounded(weights: Weights) -> Weights:
        return {name: weight.to(dtype) for name, weight in weights.items()}

    half = registry.load(f"hf:{save(model, tmp_path / 'half', rounded)}")
    assert {weight.dtype for weight in half.feature_weights().values()} == {torch.float32}
    full = save(model, tmp_path / "full", lambda weights: {k: w.float() for k, w in rounded(weights).items()})
    assert half.fingerprint() == registry.load(f"hf:{full}").fingerprint()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            "layers.1.attention",
            "8 of the 50 weights of HuBERT are missing: layer 2's attention, such as encoder.layers",
        ),
        ("encoder.layer_norm.weight", "1 of the 50 .*: the encoder's norm, such as encoder.layer_norm.weight"),
        ("projection.projection", "2 of the 50 .*: the projection, such as feature_projection.projection.bias"),
        ("conv_layers.0.conv", "1 of the 50 .*: convolution 1, such as feature_extractor.conv_layers.0.conv.weight"),
        ("pos_conv", "3 of the 50 .*: the positional convolution"),
        ("encoder.layers", r"32 of the 50 .*: layer 1's attention, .* and 2 parts more"),
        ("", "none of the 50 weights of HuBERT is there: the file is empty"),
    ],
)
@pytest.mark.parametrize("scheme", ["hf:", "hubert@"])
def test_missing_weights_are_named_and_never_random(
    scheme: str, part: str, message: str, model: Any, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        registry.load(f"{scheme}{save(model, tmp_path, without(part))}")


def test_weights_of_something_else_are_named(model: Any, tmp_path: Path) -> None:
    folder = save(model, tmp_path, lambda _: {"decoder.weight": torch.zeros(3)})
    with pytest.raises(UserError, match=r"none of the 50 weights of HuBERT is there: found decoder\.weight"):
        registry.load(f"hf:{folder}")


def test_a_config_that_the_weights_do_not_fit_is_refused(model: Any, tmp_path: Path) -> None:
    """Layers or biases that the config leaves out would change the features without a word."""
    folder = save(model, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(UserError, match="16 weights have no place in the network of its config.json: layer 2's"):
        registry.load(f"hf:{folder}")
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(UserError, match=r"intermediate_dense.bias is \[64\], and its config.json makes it \[48\]"):
        registry.load(f"hf:{folder}")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no weights. Copy model.safetensors there too, or write hf:.*@random"),
        ({"weights.bin": b"x"}, "its weights are called weights.bin, .* or write checkpoint:.*weights.bin"),
        ({"tf_model.h5": b"x"}, "its only weights are tf_model.h5, of another library"),
        ({"model.safetensors": b"version https://git-lfs/spec/v1\noid"}, "is a Git LFS pointer"),
        ({"pytorch_model.bin": b"version https://git-lfs/spec/v1\noid"}, "is a Git LFS pointer"),
        ({"model.safetensors": b"\x08\x00\x00\x00\x00\x00\x00\x00{"}, "model.safetensors: is damaged or incomplete"),
        ({"pytorch_model.bin": b""}, "HuBERT's weights can't be loaded from"),
        ({"pytorch_model.bin": b"no weights"}, "can't be loaded from|refused"),
    ],
)
def test_absent_and_damaged_weights_are_one_sentence(
    files: dict[str, bytes], message: str, model: Any, tmp_path: Path
) -> None:
    folder = save(model, tmp_path)
    (folder / "model.safetensors").unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        registry.load(f"hf:{folder}")


@pytest.mark.parametrize("name", ["WavLM", "UniSpeech"])
def test_another_network_is_no_hubert(name: str, tmp_path: Path) -> None:
    """WavLM's weights hold all of HuBERT's: its relative positions would be left out without a word."""
    network = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**{**TINY, **LARGE}))
    network.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"is a {name.lower()} network, not a HuBERT. Write hf:{tmp_path}"):
        registry.load(f"hubert@{tmp_path}")
    with pytest.raises(UserError, match=f"not a HuBERT. Write hf:{tmp_path}"):
        registry.load(f"distilhubert@{tmp_path}")


def test_code_beside_the_weights_is_never_run(model: Any, tmp_path: Path) -> None:
    folder = save(model, tmp_path / "folder")
    (folder / "network.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'it-ran')!r})\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "network.Config", "AutoModel": "network.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    assert registry.load(f"hf:{folder}").card.layers == 3
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "their-own"}))
    with pytest.raises(UserError, match="is a their-own, and these are supported"):
        registry.load(f"hf:{folder}")
    assert not (tmp_path / "it-ran").exists()


def test_names_of_weights_in_words() -> None:
    assert describe_weights(["lm_head.weight"]) == "lm_head.weight"
    assert describe_weights(["encoder.layers.10.fc1.weight", "encoder.layers.9.fc1.weight"]) == (
        "layer 10's feed-forward part, layer 11's feed-forward part, such as encoder.layers.9.fc1.weight"
    )
