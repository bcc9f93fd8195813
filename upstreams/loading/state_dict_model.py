"""Builds a transformers network from a state dict, all of whose weights it needs: none is ever random."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from superb_eval.errors import UserError
from upstreams.loading import config_bounds
from upstreams.loading.checkpoint_conversion import ConvertedCheckpoint
from upstreams.loading.network_building import building
from upstreams.loading.network_parts import describe_weights

_CLASSES = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}
"""What transformers' classes begin with, by `model_type`."""

_UNUSED = ("masked_spec_embed", "encoder.pos_conv_embed.batch_norm.num_batches_tracked")
"""Weights that training uses alone, zeros where a file has none."""


def build_network(checkpoint: ConvertedCheckpoint, config: Mapping[str, Any], path: Path, name: str) -> Any:
    """Return the network of a checkpoint in float32, on the CPU.

    Args:
        checkpoint: its weights and its architecture.
        config: arguments of transformers' configuration.
        path: the file, for errors.
        name: what the weights are to fit, for errors.

    Raises:
        UserError: a weight is missing, has no place in the network, or has another shape.
    """
    config_bounds.check_config(config, checkpoint.architecture, path)
    with building(path, name, "Is the file complete?"):
        network, settings = _classes(checkpoint.architecture)
        with torch.device("meta"):  # no memory before the weights fit it
            model = network(settings(**_arguments(checkpoint.architecture, config)))
    own, weights = model.state_dict(), checkpoint.weights
    problems = _differences(own, weights)
    if problems:
        beside = f"; left out: {', '.join(checkpoint.left_out[:5])}" if checkpoint.left_out else ""
        shard = re.search(r"-\d{5}-of-\d{5}", path.name)
        advice = "It is one of several shards: give the folder." if shard else "None is drawn at random instead."
        raise UserError(f"{path}: its weights don't fit {name}: {problems}{beside}. {advice}")
    model.to_empty(device="cpu")
    zeros = {key: torch.zeros(own[key].shape) for key in _UNUSED if key in own}
    with building(path, name, "Save plain float weights."):
        model.load_state_dict({**zeros, **weights})
    return model


def random_network(architecture: str, config: Any, seed: int) -> Any:
    """Return a network with seeded random weights; `config` is of transformers."""
    network, _ = _classes(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network(config)


def _classes(architecture: str) -> tuple[Any, Any]:
    """Return transformers' classes of the network and of its configuration.

    They are imported here, never on the meta device: a tensor that a library makes as it is imported, such as the
    epsilon of torchaudio's FBANK, would have no data for the rest of the process.
    """
    import transformers

    name = _CLASSES[architecture]
    return getattr(transformers, f"{name}Model"), getattr(transformers, f"{name}Config")


def _arguments(architecture: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's arguments, without one that is optional in HuBERT alone."""
    left_out = "" if architecture == "hubert" or not config.get("feat_proj_layer_norm") else "feat_proj_layer_norm"
    return {key: value for key, value in config.items() if key != left_out}


def _differences(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Return how weights differ from a network's own, by parts; empty where they fit."""
    missing = sorted(own.keys() - weights.keys() - set(_UNUSED))
    unexpected = sorted(weights.keys() - own.keys())
    shared = sorted(own.keys() & weights.keys())
    reshaped = [name for name in shared if own[name].shape != weights[name].shape or _is_other_type(own, weights, name)]
    found = []
    if missing:
        found.append(f"{len(missing)} missing ({describe_weights(missing)})")
    if unexpected:
        found.append(f"{len(unexpected)} unexpected ({describe_weights(unexpected)})")
    if reshaped:
        first = reshaped[0]
        found.append(
            f"{len(reshaped)} of another shape (such as {first}: {list(weights[first].shape)}, where "
            f"{list(own[first].shape)} is expected)"
        )
    return ", ".join(found)


def _is_other_type(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], name: str) -> bool:
    return own[name].is_floating_point() != weights[name].is_floating_point()
