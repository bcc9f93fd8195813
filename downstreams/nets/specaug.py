"""SpecAugment (Park et al. 2019, arXiv 1904.08779) as SUPERB applies it to features, for ASR and SF."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from downstreams.task_types.ctc import SpecAugmentSettings


class SpecAugment(nn.Module):
    """Warp each utterance in time, then mask dimensions, then frames; with the default generator of the CPU.

    Follows s3prl `downstream/specaug.py`, with the same random draws in the same order: a seed gives the same masks.
    """

    def __init__(self, settings: SpecAugmentSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return changed features [batch, frames, dim]; frames beyond `lengths` [batch] have no meaning."""
        s = self.settings
        if s.warp:
            features = self._warp_batch(features, lengths)
        for axis, masks, width in ((2, s.dim_masks, s.dim_width), (1, s.time_masks, s.time_width)):
            if masks:
                features = features.masked_fill(_draw_masks(features, axis, masks, width), 0.0)
        return features

    def _warp_batch(self, features: Tensor, lengths: Tensor) -> Tensor:
        frames = features.shape[1]
        rows = [_warp(row[:n], self.settings.warp) for row, n in zip(features, lengths.tolist(), strict=True)]
        return torch.stack([nn.functional.pad(row, (0, 0, 0, frames - len(row))) for row in rows])


def _warp(row: Tensor, window: int) -> Tensor:
    """Stretch one side of a random frame and shrink the other, so that it moves by up to `window`: [frames, dim]."""
    frames = len(row)
    # Utterances of at most two windows stay as they are.
    if frames <= 2 * window:
        return row
    centre = int(torch.randint(window, frames - window, (1,)))
    goal = int(torch.randint(centre - window, centre + window, (1,))) + 1
    return torch.cat([_resize(row[:centre], goal), _resize(row[centre:], frames - goal)])


def _resize(row: Tensor, frames: int) -> Tensor:
    """Bicubic interpolation in time: [any, dim] -> [frames, dim]."""
    size = (frames, row.shape[1])
    return nn.functional.interpolate(row[None, None], size, mode="bicubic", align_corners=False)[0, 0]


def _draw_masks(features: Tensor, axis: int, masks: int, width: int) -> Tensor:
    """Return where to mask along an axis, [batch, 1, dim] or [batch, frames, 1].

    Positions leave room for the longest mask of the batch, and frames are those of the padded batch, as in s3prl.
    """
    size = features.shape[axis]
    lengths = torch.randint(0, width, (len(features), masks))
    starts = torch.randint(0, max(1, size - int(lengths.max())), (len(features), masks))
    places = torch.arange(size)
    masked = ((starts[..., None] <= places) & (places < (starts + lengths)[..., None])).any(dim=1)
    return masked.unsqueeze(3 - axis).to(features.device)
