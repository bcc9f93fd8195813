"""Loads a HuBERT's network and weights: random, from a file in a known layout, a transformers folder or the hub."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from superb_eval.errors import UserError
from upstreams.base import Card
from upstreams.loading import checkpoint_conversion, hf_folders

if TYPE_CHECKING:
    from transformers import HubertConfig, HubertModel


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, and what their source states besides."""

    card: Card
    model: HubertModel
    normalise: bool | None = None
    heads: dict[str, Tensor] | None = None
    """Distillation heads, where the file has them (`upstreams.distilhubert.Heads`)."""


def load_model(card: Card, config: dict[str, Any], source: str | None, seed: int | None) -> LoadedModel:
    """Load the network of a card.

    Args:
        card: its name goes into errors; its sizes hold for random weights and plain state dicts.
        config: their differences from `transformers.HubertConfig`'s defaults.
        source: a file, a folder in transformers' layout, or a hub id.
        seed: of random weights; None: load those at `source`.

    Raises:
        UserError: there are no weights there, they don't fit, or the file would run code.
    """
    from transformers import HubertConfig, HubertModel

    if seed is not None:
        return LoadedModel(card, _random_model(HubertConfig(**config), seed))
    if source is None:
        raise UserError(f"{card.name} comes without weights: write {card.name}@random or {card.name}@CHECKPOINT.")
    if Path(source).is_file():
        return _from_file(card, HubertConfig(**config), Path(source))
    model = hf_folders.from_pretrained(source, "HuBERT", kind=HubertModel)
    return LoadedModel(card_with_sizes(card, model), model)


def shipped_weights(name: str) -> str | None:
    """Return the folder of the weights that this package includes for a name, or None."""
    folder = Path(__file__).parents[1] / "weights" / name
    return str(folder) if (folder / "config.json").is_file() else None


def _random_model(config: HubertConfig, seed: int) -> HubertModel:
    from transformers import HubertModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HubertModel(config)


def _from_file(card: Card, config: HubertConfig, path: Path) -> LoadedModel:
    """Load a file in another library's layout, or a state dict that fits the card's own network."""
    from transformers import HubertConfig

    content = checkpoint_conversion.read_checkpoint(path)
    converted = checkpoint_conversion.convert(content, path)
    if converted is None:
        return LoadedModel(card, _model_from_state_dict(config, _checked_state_dict(content, path), path, card.name))
    model = _model_from_state_dict(
        HubertConfig(**converted.config), converted.weights, path, f"{converted.layout} layout"
    )
    return LoadedModel(card_with_sizes(card, model), model, converted.normalise, converted.heads)


def _model_from_state_dict(config: HubertConfig, weights: dict[str, Tensor], path: Path, name: str) -> HubertModel:
    """Return a network with all of its weights taken from a state dict."""
    model = _random_model(config, seed=0)
    own = model.state_dict()
    weights = {"masked_spec_embed": own["masked_spec_embed"], **weights}  # unused by the features; students have none
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    reshaped = sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
    if missing or unexpected or reshaped:
        raise UserError(
            f"{path}: its weights don't fit {name}: {len(missing)} missing (such as {missing[:2]}), "
            f"{len(unexpected)} unexpected (such as {unexpected[:2]}), "
            f"{len(reshaped)} of another shape ({reshaped[:2]}). Give the folder with its config.json instead."
        )
    model.load_state_dict(weights)
    return model


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without ever running code from the file.

    Raises:
        UserError: the file is damaged, isn't a state dict, or is a pickle that needs more than tensors.
    """
    return _checked_state_dict(checkpoint_conversion.read_checkpoint(path), path)


def _checked_state_dict(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: isn't a plain state dict (names to tensors). Save `model.state_dict()` alone.")
    return content


def card_with_sizes(card: Card, model: Any) -> Card:
    """Return the card with the sizes of a network that has its own config."""
    config, parameters = model.config, sum(p.numel() for p in model.parameters())
    stride = math.prod(config.conv_stride)
    layers, width = config.num_hidden_layers + 1, config.hidden_size
    return replace(card, stride=stride, layers=layers, width=width, parameters=parameters)
