"""SpecAugment (Park et al. 2019, arXiv 1904.08779) as SUPERB applies it to features, for ASR and SF."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from downstreams.task_types.ctc import SpecAugmentSettings
from superb_eval.data.padding import copy_to


class SpecAugment(nn.Module):
    """Warp each utterance in time, then mask dimensions, then frames; with the default generator of the CPU.

    Follows s3prl `downstream/specaug.py`, with the same random draws in the same order: a seed gives the same masks.
    The number of operations on the features doesn't depend on the number of utterances.
    """

    def __init__(self, settings: SpecAugmentSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return changed features [batch, frames, dim]; frames beyond `lengths` [batch] have no meaning.

        `lengths` are on the host.
        """
        s = self.settings
        if s.warp:
            features = _warp(features, *_draw_warps(lengths, s.warp))
        for axis, masks, width in ((2, s.dim_masks, s.dim_width), (1, s.time_masks, s.time_width)):
            if masks:
                features = features.masked_fill(_draw_masks(features, axis, masks, width), 0.0)
        return features


def _draw_warps(lengths: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the length of each utterance, a random frame, and that to which it moves by up to `window`: [batch] each.

    One draw of 64 bits holds the two of 32 that `torch.randint` would make for the frame and its move. Utterances of at
    most two windows draw nothing and stay as they are: their last frame moves nowhere.
    """
    warped = lengths > 2 * window
    frames = lengths[warped]
    high, low = _halves(torch.empty_like(frames).random_(-(2**63), None))
    centres, goals = lengths.clone(), lengths.clone()
    centres[warped] = window + high % (frames - 2 * window)
    goals[warped] = centres[warped] - window + low % (2 * window) + 1
    return lengths, centres, goals


def _halves(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the upper and the lower 32 bits of integers of 64."""
    return numbers >> 32 & 0xFFFFFFFF, numbers & 0xFFFFFFFF


def _warp(features: Tensor, lengths: Tensor, centres: Tensor, goals: Tensor) -> Tensor:
    """Resize the frames before each centre to those before its goal, and the others likewise: [batch, frames, dim].

    As torch's bicubic interpolation of either side in time, and zeros beyond `lengths`. Each frame is a weighted sum of
    four; which ones is computed on the host, where `lengths`, `centres` and `goals` are, [batch] each.
    """
    batch, frames, dim = features.shape
    lengths, centres, goals = lengths[:, None], centres[:, None], goals[:, None]
    frame = torch.arange(frames)
    place = frame.minimum(lengths - 1)
    # The side of each frame: where it begins and how long it is, before the move and after it.
    right = place >= goals
    begin, moved_begin = torch.where(right, centres, 0), torch.where(right, goals, 0)
    size, moved_size = torch.where(right, lengths - centres, centres), torch.where(right, lengths - goals, goals)
    # In double and rounded once, as the fused multiply-add of torch's kernel.
    scale = (size.float() / moved_size.float()).double()
    position = (scale * (place - moved_begin + 0.5) - 0.5).float()
    floor = position.floor()
    taps = floor.long()[..., None] + torch.arange(-1, 3)
    taps = begin[..., None] + taps.clamp(min=0).minimum(size[..., None] - 1)
    rows = taps + frames * torch.arange(batch)[:, None, None]
    weights = _cubic(position - floor).masked_fill((frame >= lengths)[..., None], 0.0)
    return nn.functional.embedding_bag(
        copy_to(rows.view(-1, 4), features.device),
        features.reshape(-1, dim),
        per_sample_weights=copy_to(weights.view(-1, 4), features.device).to(features.dtype),
        mode="sum",
    ).view_as(features)


def _cubic(fraction: Tensor) -> Tensor:
    """Return the weights of four neighbours, the second of which is `fraction` away: [..., 4].

    Keys, "Cubic convolution interpolation for digital image processing" (1981), with torch's a = -0.75.
    """
    a, other = -0.75, 1 - fraction
    near = torch.stack([fraction, other], dim=-1)
    far = near + 1
    near = ((a + 2) * near - (a + 3)) * near * near + 1
    far = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return torch.stack([far[..., 0], near[..., 0], near[..., 1], far[..., 1]], dim=-1)


def _draw_masks(features: Tensor, axis: int, masks: int, width: int) -> Tensor:
    """Return where to mask along an axis, [batch, 1, dim] or [batch, frames, 1].

    Positions leave room for the longest mask of the batch, and frames are those of the padded batch, as in s3prl.
    """
    size = features.shape[axis]
    lengths = torch.randint(0, width, (len(features), masks))
    starts = torch.randint(0, max(1, size - int(lengths.max())), (len(features), masks))
    places = torch.arange(size)
    masked = ((starts[..., None] <= places) & (places < (starts + lengths)[..., None])).any(dim=1)
    return copy_to(masked.unsqueeze(3 - axis), features.device)
