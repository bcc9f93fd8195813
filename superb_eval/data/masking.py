"""Padded batches: the mask of valid frames, and means over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


def valid_mask(lengths: Tensor, frames: int) -> Tensor:
    """Return a mask [batch, frames], true on the first `lengths` [batch] frames of each utterance."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def mean_over_time(padded: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean over valid frames: [batch, frames, dim] -> [batch, dim]."""
    mask = valid_mask(lengths, padded.shape[1])[..., None]
    return (padded * mask).sum(dim=1) / lengths[:, None]
