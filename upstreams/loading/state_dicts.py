"""Finds the encoders in a checkpoint, however deep they lie and whatever comes before their weights' names.

An encoder is recognised by its first convolution. What comes before it is the prefix: where the state dict lies
(`model.`, `state_dict.`), wrappers (`module.`), and modules around the encoder (`hubert.`, `w2v_encoder.w2v_model.`).
A module that was pickled whole is read like its state dict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from superb_eval.errors import UserError
from upstreams.loading.checkpoint_file import StoredCheckpoint
from upstreams.loading.inert_values import InertObject, printable
from upstreams.loading.network_building import check_size
from upstreams.loading.tensor_kinds import odd_kind

_FIRST_CONVOLUTION = re.compile(r"^((?:.*\.)?)feature_extractor\.conv_layers\.0\.(?:0|conv)\.weight$")
_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
_MAX_DEPTH = 40
"""Of nested dictionaries and modules."""
_MAX_LENGTH = 1_000
"""Of the path of a tensor in characters."""
_MAX_NETWORKS = 64


@dataclass(frozen=True)
class StoredNetwork:
    """The weights of one encoder in a file."""

    prefix: str
    """What comes before its weights' names, ends in a full stop; empty: nothing."""
    weights: dict[str, Tensor] = field(repr=False)
    """By their names without the prefix."""


@dataclass(frozen=True)
class Selection:
    """The part of an address after `#`: `PREFIX`, `heads=N` or both with a comma between them."""

    prefix: str | None = None
    """Of the network in the file; None: it has a single one."""
    heads: int | None = None
    """The number of attention heads, for weights without settings."""

    @classmethod
    def parse(cls, text: str, path: str) -> Selection:
        """Return the selection that a text states; `path` is the file, for errors.

        Raises:
            UserError: the number of heads is none.
        """
        prefix, heads = None, None
        for word in filter(None, text.split(",")):
            key, equals, value = word.partition("=")
            if equals and key == "heads":
                if not (value.isdecimal() and len(value) < 5 and 0 < int(value) <= 1024):
                    raise UserError(
                        f"{path}#{printable(text)}: not so many heads. Expected a number of heads up to 1024."
                    )
                heads = int(value)
            else:
                prefix = word
        return cls(prefix, heads)


def select_network(stored: StoredCheckpoint, prefix: str | None) -> StoredNetwork:
    """Return the encoder of a file, or the one at a prefix where it holds several.

    Raises:
        UserError: there is none, there are several and no prefix is given, or there is none at the prefix.
    """
    networks = find_networks(stored.content)
    for network in networks:
        _check_plain(network, stored.path)
    path = stored.path
    addresses = ", ".join(f"{path}#{network.prefix.rstrip('.') or '.'}" for network in networks)
    if not networks:
        names = sorted(_tensors(stored.content))
        held = f"{len(names)} tensors, such as {names[:2]}" if names else "no tensors"
        raise UserError(
            f"{path}: holds {held}, but no weights of HuBERT, wav2vec 2.0 or WavLM (none ends in "
            "feature_extractor.conv_layers.0.conv.weight). Wrap other networks in your own FILE.py:Class."
        )
    if prefix is None:
        if len(networks) > 1:
            raise UserError(f"{path}: holds {len(networks)} networks. Name one: {addresses}.")
        return networks[0]
    wanted = f".{prefix.strip('.')}.".replace("..", ".")
    exact = [network for network in networks if f".{network.prefix}" == wanted]
    within = exact or [network for network in networks if wanted in f".{network.prefix}"]
    if len(within) != 1:
        count = "several networks" if within else "no network"
        raise UserError(f"{path}: '#{prefix}' names {count} in it. Expected one of {addresses}.")
    return within[0]


def find_networks(content: Mapping[Any, Any]) -> list[StoredNetwork]:
    """Return every encoder in the content of a file; one that lies there under two names is returned once."""
    tensors = _tensors(content)
    networks: dict[tuple[int, ...], StoredNetwork] = {}
    matches = [match for name in tensors if (match := _FIRST_CONVOLUTION.match(name))]
    for match in matches[:_MAX_NETWORKS]:
        prefix = match[1]
        weights = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        own = [value for key, value in weights.items() if key.startswith("feature_extractor.")]
        networks.setdefault(tuple(map(_place, own)), StoredNetwork(prefix, weights))
    return list(networks.values())


def _place(tensor: Tensor) -> int:
    """Return where a tensor lies in memory; of one without a place of its own, its identity."""
    return tensor.data_ptr() if odd_kind(tensor) is None else id(tensor)


def _check_plain(network: StoredNetwork, path: Path) -> None:
    """Refuse weights that can't be copied, or that stand for more numbers than are allowed: one number, repeated."""
    for name, weight in network.weights.items():
        kind = odd_kind(weight)
        if kind is not None:
            raise UserError(f"{path}: its {network.prefix}{name} is {kind}. Save plain float weights.")
    check_size(sum(4.0 * weight.numel() for weight in network.weights.values()), path)


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return every tensor in nested dictionaries and pickled modules, by its path, without the names of wrappers.

    A dictionary that lies at several places is entered once, so that those that hold each other end.
    """
    found: dict[str, Tensor] = {}
    entered: set[int] = set()
    pending: list[tuple[str, Any, int]] = [("", content, 0)]
    while pending:
        path, value, depth = pending.pop()
        if isinstance(value, Tensor):
            found[_WRAPPERS.sub("", path)] = value
            continue
        children = _children(value)
        if children and id(value) not in entered and depth < _MAX_DEPTH:
            entered.add(id(value))
            dot = "." if path else ""
            for key, child in reversed(children.items()):
                name = printable(key) if isinstance(key, str) else "?"
                if len(path) + len(name) < _MAX_LENGTH:
                    pending.append((f"{path}{dot}{name}", child, depth + 1))
    return found


def _children(value: Any) -> dict[Any, Any]:
    """Return what a dictionary holds, or the weights and modules of a pickled module."""
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, InertObject) or not isinstance(value.state, dict):
        return {}
    parts = (value.state.get(part) for part in ("_parameters", "_buffers", "_modules"))
    return {key: child for part in parts if isinstance(part, dict) for key, child in part.items()}
