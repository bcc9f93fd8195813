"""Weights of an existing encoder, copied into a network before its training begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superb_eval.errors import UserError
from upstreams import registry
from upstreams.hubert import Hubert
from upstreams.loading.network_settings import network_settings

if TYPE_CHECKING:
    from transformers import HubertModel


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
    model.load_state_dict({"masked_spec_embed": model.masked_spec_embed, **upstream.model.state_dict()})


def _shown(value: Any) -> str:
    return "no such entry" if value is None else str(value)
