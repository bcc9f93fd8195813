"""The parts of a network in words, by the names of their weights."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PARTS = (
    (r"feature_extractor\.conv_layers\.(\d+)\.", "convolution {}"),
    (r"feature_projection\.layer_norm\.", "the norm before the projection"),
    (r"feature_projection\.projection\.", "the projection"),
    (r"encoder\.pos_conv_embed\.", "the positional convolution"),
    (r"encoder\.layers\.(\d+)\.(?:attention|self_attn)\.", "layer {}'s attention"),
    (r"encoder\.layers\.(\d+)\.(?:feed_forward|fc\d)\b", "layer {}'s feed-forward part"),
    (r"encoder\.layers\.(\d+)\.", "layer {}'s norms"),
    (r"encoder\.layer_norm\.", "the encoder's norm"),
)

MOST_PARTS = 4
"""Parts that a message lists."""


def describe_weights(names: Iterable[str]) -> str:
    """Return which parts weights belong to, by transformers' names of them, and one of the names.

    Convolutions and layers count from 1, so that layer k is the one whose output is hidden state k.

        >>> describe_weights(["encoder.layers.6.attention.k_proj.weight"])
        "layer 7's attention, such as encoder.layers.6.attention.k_proj.weight"
    """
    ordered = sorted(names, key=_natural_order)
    parts = list(dict.fromkeys(part for name in ordered if (part := _part(name))))
    if not parts:
        return ordered[0] if len(ordered) == 1 else f"such as {ordered[0]}"
    more = f" and {len(parts) - MOST_PARTS} parts more" if len(parts) > MOST_PARTS else ""
    return f"{', '.join(parts[:MOST_PARTS])}{more}, such as {ordered[0]}"


def _natural_order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _part(name: str) -> str | None:
    """Return the part that a weight belongs to; None: it is none of the network's."""
    for pattern, part in _PARTS:
        if match := re.match(pattern, name):
            return part.format(*(int(number) + 1 for number in match.groups()))
    return None
