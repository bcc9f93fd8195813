"""Weights of an existing encoder, copied into a network before its training begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from superb_eval.errors import UserError
from upstreams import registry
from upstreams.base import Upstream
from upstreams.hubert import Hubert
from upstreams.loading import weight_names
from upstreams.loading.network_settings import network_settings

if TYPE_CHECKING:
    from transformers import HubertModel


def trunk_weights(upstream: Upstream) -> weight_names.Weights:
    """Return an upstream's weights by the names of transformers' HuBERT; an empty dict where it is no such network."""
    weights = upstream.state_dict()
    first = next((name for name in weights if "feature_extractor.conv_layers.0." in name), None)
    if first is None:
        return {}
    prefix = first[: first.index("feature_extractor.")]
    return weight_names.to_transformers(
        {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    )


@torch.no_grad()
def initialise(model: HubertModel, address: str) -> None:
    """Copy all weights of the encoder at an address into a network of the same settings.

    An encoder that was trained without masks, such as a student, has no mask vector; the network keeps its own then.

    Raises:
        UserError: the encoder can't be loaded, is no HuBERT on transformers' network, or is another network.
    """
    upstream = registry.load(address)
    if not isinstance(upstream, Hubert):
        raise UserError(
            f"network.initialise: {address} is not one of this package's HuBERT-like upstreams. "
            "Give hubert@FOLDER, the encoder of an earlier training."
        )
    theirs, ours = network_settings(upstream.model.config), network_settings(model.config)
    for key in sorted(theirs | ours):
        if theirs.get(key) != ours.get(key):
            raise UserError(
                f"network.initialise: {address} has {key}={_shown(theirs.get(key))}, the recipe's network "
                f"{_shown(ours.get(key))}. Give the section network the encoder's settings."
            )
    model.load_state_dict({"masked_spec_embed": model.masked_spec_embed, **trunk_weights(upstream)})


def _shown(value: Any) -> str:
    return "no such entry" if value is None else str(value)
