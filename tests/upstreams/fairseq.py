"""Small models in fairseq's layouts: their sizes, the networks as s3prl includes them, and files as fairseq saves them.

The networks are fairseq's and Microsoft's own modules, which share no code with transformers'.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from upstreams import s3prl

CONV = "[(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2"
SIZES = {
    "encoder_layers": 2,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 64,
    "encoder_attention_heads": 2,
    "conv_pos": 16,
    "conv_pos_groups": 2,
    "final_dim": 32,
}
LARGE = {"layer_norm_first": True, "extractor_mode": "layer_norm", "conv_bias": True}
"""How the Large networks differ from Base."""


def settings(**changed: Any) -> dict[str, Any]:
    """Return a network's settings, as `cfg.model` holds them."""
    return {**SIZES, "conv_feature_layers": CONV, "label_rate": 50.0, **changed}


def perturb_vectors(model: nn.Module) -> nn.Module:
    """Give norms and biases, which begin as ones and zeros, other values, so that swapped weights would show."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model.eval()


def hubert(model: dict[str, Any]) -> nn.Module:
    """Return fairseq's HuBERT with random weights."""
    s3prl.supply_missing_names()
    from s3prl.upstream.hubert import hubert_model as theirs
    from s3prl.upstream.utils import merge_with_parent

    torch.manual_seed(0)
    task = theirs.HubertPretrainingConfig(label_rate=50)
    return perturb_vectors(theirs.HubertModel(merge_with_parent(theirs.HubertConfig, model), task, [["a", "b"]]))


def wav2vec2(model: dict[str, Any]) -> nn.Module:
    """Return fairseq's wav2vec 2.0 with random weights, with its quantizer."""
    s3prl.supply_missing_names()
    from s3prl.upstream.utils import merge_with_parent
    from s3prl.upstream.wav2vec2 import wav2vec2_model as theirs

    torch.manual_seed(0)
    quantized = {"quantize_targets": True, "latent_vars": 4, **model}
    return perturb_vectors(theirs.Wav2Vec2Model(merge_with_parent(theirs.Wav2Vec2Config, quantized)))


def wavlm(model: dict[str, Any]) -> nn.Module:
    """Return Microsoft's WavLM with random weights."""
    s3prl.supply_missing_names()
    from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

    torch.manual_seed(0)
    return perturb_vectors(WavLM(WavLMConfig(model)))


def hidden_states(model: Any, wav: Tensor, normalise: bool = False) -> list[Tensor]:
    """Return the hidden states that s3prl's experts return: each layer's input, and the encoder's output."""
    states: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0].transpose(0, 1)))
        for layer in model.encoder.layers
    ]
    hooks.append(model.encoder.register_forward_hook(lambda _, __, output: states.append(output[0])))
    with torch.no_grad():
        wav = nn.functional.layer_norm(wav, wav.shape) if normalise else wav
        model.extract_features(wav[None], torch.zeros(1, len(wav), dtype=torch.bool), mask=False)
    for hook in hooks:
        hook.remove()
    count = min(state.shape[1] for state in states)  # fairseq appends a masked frame to an odd number
    return [state[:, :count] for state in states]


@contextmanager
def fairseq_package() -> Iterator[Any]:
    """Make fairseq's dictionary and one of its enumerations (`Dictionary`, `Choices`), which are gone afterwards."""
    import enum

    names = ("fairseq", "fairseq.data", "fairseq.data.dictionary", "fairseq.dataclass", "fairseq.dataclass.constants")
    modules = {name: types.ModuleType(name) for name in names}
    sys.modules.update(modules)
    dictionary: Any = modules["fairseq.data.dictionary"]
    dictionary.Dictionary = type("Dictionary", (), {"__module__": dictionary.__name__})
    constants: Any = modules["fairseq.dataclass.constants"]
    constants.Choices = enum.Enum(  # type: ignore[misc]
        "Choices", {"default": "default", "layer_norm": "layer_norm"}, module=constants.__name__
    )
    try:
        yield types.SimpleNamespace(Dictionary=dictionary.Dictionary, Choices=constants.Choices)
    finally:
        for name in names:
            del sys.modules[name]


def save(path: Path, model: nn.Module, configuration: dict[str, Any], **options: Any) -> Path:
    """Write a checkpoint as fairseq's trainer does, with a dictionary of its own class; fairseq is gone afterwards.

    `configuration` is `{"cfg": ...}` or `{"args": ...}`, `options` are of `torch.save`.
    """
    with fairseq_package() as package:
        dictionary = package.Dictionary()
        dictionary.symbols, dictionary.indices = ["<s>", "a"], {"<s>": 0, "a": 1}
        content = {
            "args": None,
            "cfg": None,
            "model": model.state_dict(),
            "criterion": None,
            "optimizer_history": [{"criterion_name": "HubertCriterion", "num_updates": 7}],
            "task_state": {"dictionaries": [dictionary]},
            "extra_state": {"epoch": 1, "train_iterator": {"shuffle": True}},
            "last_optimizer_state": {"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": []},
            **configuration,
        }
        torch.save(content, path, **options)
    return path


def as_namespace(model: dict[str, Any], normalise: bool = False) -> dict[str, Any]:
    """Return the settings as fairseq stored them until 0.10."""
    return {"args": argparse.Namespace(**model, normalize=normalise, arch="hubert", task="hubert_pretraining")}


def as_dictionary(model: dict[str, Any], normalise: bool = False, name: str = "hubert") -> dict[str, Any]:
    """Return the settings as fairseq stores them today."""
    task = {"_name": "hubert_pretraining", "normalize": normalise, "data": "/data"}
    return {"cfg": {"_name": None, "common": {"seed": 1}, "model": {"_name": name, **model}, "task": task}}


def as_omegaconf(model: dict[str, Any], normalise: bool = False, name: str = "hubert") -> dict[str, Any]:
    """Return the settings as omegaconf's container, whose nodes are pickled one by one."""
    from omegaconf import OmegaConf

    return {"cfg": OmegaConf.create(as_dictionary(model, normalise, name)["cfg"])}
