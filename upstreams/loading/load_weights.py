"""Opens a HuBERT's network and weights: random ones, a file in any known layout, a transformers folder, a hub id."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from superb_eval.errors import UserError
from upstreams.base import Card
from upstreams.loading import checkpoint_conversion
from upstreams.loading.safe_pickle import refused_pickle

if TYPE_CHECKING:
    from transformers import HubertConfig, HubertModel


@dataclass(frozen=True)
class Opened:
    """A network with its weights, and what the place they came from says beside them."""

    card: Card
    model: HubertModel
    normalise: bool | None = None
    heads: dict[str, Tensor] | None = None
    """Distillation heads, in a file that keeps them (`upstreams.distilhubert.Heads`)."""


def open_model(card: Card, config: dict[str, Any], place: str | None, seed: int | None) -> Opened:
    """Open the network of a card.

    Args:
        card: names it; brings the sizes of seeded random weights and of plain state dicts.
        config: what departs from `transformers.HubertConfig`'s defaults in them.
        place: a file, a folder in transformers' layout, or a hub id.
        seed: of random weights; None: open what lies at `place`.

    Raises:
        UserError: there are no weights there, they don't fit, or the file wants to run code.
    """
    from transformers import HubertConfig, HubertModel

    if seed is not None:
        return Opened(card, _random(HubertConfig(**config), seed))
    if place is None:
        raise UserError(f"{card.name} comes without weights: write {card.name}@random or {card.name}@CHECKPOINT.")
    if Path(place).is_file():
        return _from_file(card, HubertConfig(**config), Path(place))
    model = from_pretrained(place, "HuBERT", kind=HubertModel)
    return Opened(fitted(card, model), model)


def shipped(name: str) -> str | None:
    """Return the folder of the weights that come with this package under a name, or None where there are none."""
    folder = Path(__file__).parents[1] / "weights" / name
    return str(folder) if (folder / "config.json").is_file() else None


def _random(config: HubertConfig, seed: int) -> HubertModel:
    from transformers import HubertModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HubertModel(config)


def _from_file(card: Card, config: HubertConfig, path: Path) -> Opened:
    """Open a file in another library's layout, or a state dict that fits the card's own network."""
    from transformers import HubertConfig

    content = checkpoint_conversion.read(path)
    found = checkpoint_conversion.recognise(content, path)
    if found is None:
        return Opened(card, _filled(config, _tensors(content, path), path, card.name))
    model = _filled(HubertConfig(**found.config), found.weights, path, f"{found.layout} layout")
    return Opened(fitted(card, model), model, found.normalise, found.heads)


def _filled(config: HubertConfig, weights: dict[str, Tensor], path: Path, name: str) -> HubertModel:
    """Return a network with all of its weights from a state dict."""
    model = _random(config, seed=0)
    own = model.state_dict()
    weights = {"masked_spec_embed": own["masked_spec_embed"], **weights}  # no part of the features; students have none
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    reshaped = sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
    if missing or unknown or reshaped:
        raise UserError(
            f"{path}: its weights don't fit {name}: {len(missing)} missing (such as {missing[:2]}), "
            f"{len(unknown)} unknown (such as {unknown[:2]}), {len(reshaped)} of another shape ({reshaped[:2]}). "
            "Give the folder with its config.json instead."
        )
    model.load_state_dict(weights)
    return model


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without ever running code from the file.

    Raises:
        UserError: the file is damaged, no state dict, or a pickle that needs more than tensors.
    """
    return _tensors(checkpoint_conversion.read(path), path)


def _tensors(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: holds no plain state dict (names to tensors). Save `model.state_dict()` alone.")
    return content


@contextmanager
def _without_bars() -> Iterator[None]:
    """Hide transformers' bar while weights load: it would stand between a run's own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def from_pretrained(place: str, what: str, kind: Any = None, **options: Any) -> Any:
    """Load a folder in transformers' layout, or a hub id, in float32; code that lies there is never run.

    Args:
        place: the folder or id.
        what: the network in words, for errors.
        kind: transformers' class of the network; None: the one that its config names.
        options: handed to its `from_pretrained`.

    Raises:
        UserError: there are no weights, they don't fit, or they are a pickle that wants more than tensors.
    """
    from transformers import AutoModel

    loader: Callable[..., Any] = (kind or AutoModel).from_pretrained
    with explained(place, f"{what}'s weights"), _without_bars():
        model, info = loader(place, output_loading_info=True, dtype=torch.float32, **options)
    missing = [name for name in info["missing_keys"] if name != "masked_spec_embed"]
    if missing or info["mismatched_keys"]:
        raise UserError(f"{place}: no {what}: {len(missing)} weights are missing, such as {sorted(missing)[:2]}.")
    return model


@contextmanager
def explained(place: str, what: str) -> Iterator[None]:
    """Turn what transformers raises on a folder or hub id into one sentence.

    Raises:
        UserError: `what` can't be opened there, or is a pickle that wants more than tensors.
    """
    import pickle

    try:
        yield
    except pickle.UnpicklingError as error:
        raise refused_pickle(place, "Give a folder with .safetensors.") from error
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"{what} can't be opened from '{place}': {first} Give a folder with @FOLDER, or @random."
        ) from error


def fitted(card: Card, model: Any) -> Card:
    """Return the card with the sizes of a network that brought its own config."""
    config, parameters = model.config, sum(p.numel() for p in model.parameters())
    stride = math.prod(config.conv_stride)
    layers, width = config.num_hidden_layers + 1, config.hidden_size
    return replace(card, stride=stride, layers=layers, width=width, parameters=parameters)
