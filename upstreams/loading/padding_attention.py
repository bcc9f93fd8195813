"""Attention over padded batches whose mask is made on the device, without reading it back.

transformers' own looks at the values of a mask, to leave out one that masks nothing: on a GPU each forward pass then
waits for all that was launched before it. Here a batch without padding has no mask (`attention_mask=None`), and any
other mask is used as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "sdpa_padding"
"""Of this attention, among transformers' (`config._attn_implementation`)."""


def use_padding_attention(model: PreTrainedModel) -> None:
    """Make a network with torch's fused attention use it with masks that aren't read; others stay as they are."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, sdpa_attention_forward)
    AttentionMaskInterface.register(NAME, padding_bias)
    model.set_attn_implementation(NAME)


def padding_bias(attention_mask: Tensor | None, dtype: torch.dtype, **shapes: Any) -> Tensor | None:
    """Return what is added to the attention scores, [batch, 1, 1, frames]: minus infinity where a frame is padded.

    `attention_mask` [batch, frames] is true on valid frames; an utterance needs at least one. One row serves all
    queries, and fused kernels take it in `dtype`, so that no layer converts it again.
    """
    del shapes
    if attention_mask is None:
        return None
    bias = torch.zeros(attention_mask.shape, dtype=dtype, device=attention_mask.device)
    return bias.masked_fill(~attention_mask, -torch.inf)[:, None, None]
