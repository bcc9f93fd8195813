"""Loads a HuBERT's network and weights: random, from a file in a known layout, a transformers folder or the hub."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from superb_eval.errors import UserError
from upstreams.base import Card
from upstreams.loading import checkpoint_conversion, hf_folders
from upstreams.loading.checkpoint_conversion import ConvertedCheckpoint
from upstreams.loading.checkpoint_file import read_checkpoint
from upstreams.loading.state_dict_model import build_network, random_network
from upstreams.loading.state_dicts import Selection

if TYPE_CHECKING:
    from transformers import HubertModel


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
        source: a file, perhaps with a selection (`FILE#PREFIX`), a folder in transformers' layout, or a hub id.
        seed: of random weights; None: load those at `source`.

    Raises:
        UserError: there are no weights there, they don't fit, or the file would run code.
    """
    from transformers import HubertConfig, HubertModel

    if seed is not None:
        return LoadedModel(card, random_network("hubert", HubertConfig(**config), seed))
    if source is None:
        raise UserError(f"{card.name} comes without weights: write {card.name}@random or {card.name}@CHECKPOINT.")
    if (file := split_selection(source)) is not None:
        return _from_file(card, config, *file)
    model = hf_folders.from_pretrained(source, "HuBERT", kind=HubertModel, return_dict=True)
    return LoadedModel(card_with_sizes(card, model), model)


def shipped_weights(name: str) -> str | None:
    """Return the folder of the weights that this package includes for a name, or None."""
    folder = Path(__file__).parents[1] / "weights" / name
    return str(folder) if (folder / "config.json").is_file() else None


def _from_file(card: Card, config: dict[str, Any], path: Path, selection: Selection) -> LoadedModel:
    """Load a file in any known layout; weights without settings are the card's own network where they fit it."""
    opened = open_checkpoint(path, selection, card.name, config)
    if opened.checkpoint.architecture == "wavlm":
        raise UserError(f"{path}: is a WavLM, not a HuBERT. Load it with checkpoint:{path}.")
    sized = card if opened.by_card else card_with_sizes(card, opened.model)
    sized = replace(sized, notes=(*card.notes, *opened.notes))
    return LoadedModel(sized, opened.model, opened.normalise, opened.checkpoint.heads)


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A network from a file of weights, and what the file is."""

    model: Any
    checkpoint: ConvertedCheckpoint
    foreign: tuple[str, ...]
    """The names of other libraries' classes in it, which were left out."""
    notes: tuple[str, ...] = ()
    """What the file doesn't state, for the card."""
    by_card: bool = False
    """Whether its settings are those of a card."""

    @property
    def normalise(self) -> bool | None:
        """Whether waveforms are normalised; None: neither the file nor the card states it."""
        return None if self.by_card else self.checkpoint.normalise


def open_checkpoint(
    path: Path, selection: Selection, name: str = "", config: dict[str, Any] | None = None
) -> OpenedCheckpoint:
    """Open a file of weights by what it holds.

    Args:
        path: the file.
        selection: which network of it, and what it doesn't state.
        name: of a card, for errors.
        config: the card's settings, as arguments of `transformers.HubertConfig`, for weights without settings.

    Raises:
        UserError: it holds no network that is supported, several, or not all of one's weights; or it is unsafe.
    """
    stored = read_checkpoint(path)
    found = checkpoint_conversion.convert(stored, selection.prefix)
    if found.stated:
        model = build_network(found, found.config, path, f"{found.layout} layout")
        return OpenedCheckpoint(model, found, stored.foreign)
    if config is not None and selection.heads is None and found.architecture == "hubert":
        try:
            own = build_network(found, config, path, name)
            return OpenedCheckpoint(own, found, stored.foreign, by_card=True)
        except UserError:  # of other sizes than the card's: those of the weights
            pass
    width = found.config["hidden_size"]
    heads = selection.heads or found.stated_heads or checkpoint_conversion.published_heads(width)
    sizes = {**found.config, "num_attention_heads": heads or 1}
    model = build_network(found, sizes, path, name or found.layout)
    if heads is None:
        raise UserError(
            f"{path}: holds weights without settings, and their number of attention heads isn't known at a width of "
            f"{width}. State it, as in {path}#heads=N, or give a folder with config.json."
        )
    guessed = "" if selection.heads or found.stated_heads else f"{heads} attention heads, "
    norm = "pre-norm, normalised waveforms" if found.normalise else "post-norm, waveforms as they are"
    note = f"the file has no settings: taken to be as in the published networks ({guessed}{norm})"
    return OpenedCheckpoint(model, found, stored.foreign, (note,))


def split_selection(source: str) -> tuple[Path, Selection] | None:
    """Return the file of `FILE` or `FILE#PREFIX`, and the selection in it; None: `source` is no file.

    Raises:
        UserError: the selection is malformed.
    """
    if _is_file(source):
        return Path(source), Selection()
    head, mark, tail = source.rpartition("#")
    return (Path(head), Selection.parse(tail, head)) if mark and _is_file(head) else None


def _is_file(path: str) -> bool:
    """Return whether there is anything but a folder: what isn't a regular file is refused when it is opened."""
    return os.path.lexists(path) and not os.path.isdir(path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without ever running code from the file.

    Raises:
        UserError: the file is damaged, isn't a state dict, or is a pickle that needs more than tensors.
    """
    content = read_checkpoint(path).content
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: isn't a plain state dict (names to tensors). Save `model.state_dict()` alone.")
    return content


def card_with_sizes(card: Card, model: Any) -> Card:
    """Return the card with the sizes of a network that has its own config."""
    config, parameters = model.config, sum(p.numel() for p in model.parameters())
    stride = math.prod(config.conv_stride)
    layers, width = config.num_hidden_layers + 1, config.hidden_size
    return replace(card, stride=stride, layers=layers, width=width, parameters=parameters)
