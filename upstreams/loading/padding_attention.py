"""Attention over padded batches whose masks are made on the device: nothing is read back, and no value is copied there.

transformers' own looks at the values of a mask, to leave out one that masks nothing: on a GPU each forward pass then
waits for all that was launched before it. Here a batch without padding has no mask (`attention_mask=None`), and any
other mask is used as it is. Its mask of valid frames is a number of the host written into a tensor of the device, and
that copy is waited for too; here it is a comparison.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from superb_eval.data.padding import count_frames, valid_mask

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


def use_valid_mask(model: PreTrainedModel) -> None:
    """Make a network with HuBERT's front end mask the frames of its padded batches by `valid_frames`."""
    layers = tuple(zip(model.config.conv_kernel, model.config.conv_stride, strict=True))
    # A partial, unlike a method, refers to no network: copies of this one keep it.
    vars(model)["_get_feature_vector_attention_mask"] = partial(valid_frames, layers)


def valid_frames(
    layers: tuple[tuple[int, int], ...], frames: int, attention_mask: Tensor, add_adapter: bool | None = None
) -> Tensor:
    """Return the mask [batch, frames] that transformers' `_get_feature_vector_attention_mask` returns.

    `layers` are the convolutions' kernels and strides; `attention_mask` [batch, samples] sums up to each waveform's
    samples, which are enough for one frame. There are no adapters here, so that `add_adapter` changes nothing.
    """
    del add_adapter
    return valid_mask(count_frames(attention_mask.sum(-1), layers), frames)
