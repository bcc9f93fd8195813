"""The x-vector head of ASV: a time-delay network, statistics over time, and AM-softmax.

Source: s3prl `downstream/sv_voxceleb1/model.py`, after Snyder et al., "X-vectors" (ICASSP 2018), and Wang et al.,
"Additive margin softmax for face verification" (arXiv 1801.05599). There is no batch norm and no dropout.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from downstreams.nets.renamed_keys import RenamedSubmodules
from superb_eval.data.padding import copy_to, valid_mask

CONTEXTS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))
"""Frames of context of each layer, and their dilation."""

LOST_FRAMES = sum((frames - 1) * dilation for frames, dilation in CONTEXTS)
"""Frames by which the output is shorter, 14: only whole contexts are used."""

MIN_FRAMES = LOST_FRAMES + 2
"""Frames that an embedding needs: a standard deviation takes two. Shorter utterances repeat their last frame, where
s3prl fails."""


class XVector(RenamedSubmodules):
    """Frames in, an embedding out; in training, the cosine between embedding and every speaker.

    connector `Linear(dim, hidden)`; five time-delay layers with ReLU, the last of width `wide`; mean and standard
    deviation (unbiased) over time; `segment6`, `Linear(2 wide, hidden)`, ReLU: the embedding that trials compare;
    `segment7`, `Linear(hidden, hidden)`, ReLU: what training classifies (Snyder et al. call these layers so).
    `one_frame_more` repeats an error of s3prl: in training, utterances that are shorter than the longest of their batch
    are pooled over one frame more, whose context reaches into padding.
    """

    FORMER_NAMES: ClassVar = {"tested": "segment6", "trained": "segment7"}

    def __init__(self, dim: int, speakers: int, hidden: int = 512, wide: int = 1500, one_frame_more: bool = True):
        super().__init__()
        self.one_frame_more = one_frame_more
        self.connector = nn.Linear(dim, hidden)
        widths = [hidden] * len(CONTEXTS) + [wide]
        self.tdnn = nn.ModuleList(
            nn.Conv1d(widths[k], widths[k + 1], frames, dilation=dilation)
            for k, (frames, dilation) in enumerate(CONTEXTS)
        )
        self.segment6 = nn.Linear(2 * wide, hidden)
        self.segment7 = nn.Linear(hidden, hidden)
        self.speakers = nn.Parameter(nn.init.xavier_normal_(torch.empty(hidden, speakers)))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return cosines [batch, speakers] in training, else embeddings [batch, hidden] of length 1.

        `features` is [batch, frames, dim], `lengths` [batch] in frames.
        """
        features, lengths = pad_to_frames(features, lengths, MIN_FRAMES)
        frames = self.connector(features).transpose(1, 2)
        for layer in self.tdnn:
            frames = F.relu(layer(frames))
        embedding = F.relu(self.segment6(statistics(frames.transpose(1, 2), self._pooled(lengths, frames.shape[2]))))
        if not self.training:
            return F.normalize(embedding, dim=1)
        embedding = F.relu(self.segment7(embedding))
        cosines: Tensor = F.normalize(embedding, dim=1) @ F.normalize(self.speakers, dim=0)
        return cosines

    def _pooled(self, lengths: Tensor, frames: int) -> Tensor:
        """Frames [batch] that each utterance is pooled over; s3prl tests one by one, without padding."""
        left = lengths - LOST_FRAMES
        return (left + 1).clamp(max=frames) if self.training and self.one_frame_more else left


def pad_to_frames(features: Tensor, lengths: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Return features [batch, frames, dim] with zeros as padding, and shorter utterances filled with their last frame.

    `lengths` [batch], on the host, is returned as the lengths after that, on the features' device.
    """
    features = F.pad(features, (0, 0, 0, max(0, frames - features.shape[1])))
    lengths = copy_to(lengths, features.device)
    longer = lengths.clamp(min=frames)
    last = features.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, features.shape[2]))
    filled = torch.where(valid_mask(lengths, features.shape[1])[..., None], features, last)
    return filled * valid_mask(longer, features.shape[1])[..., None], longer


def statistics(frames: Tensor, lengths: Tensor) -> Tensor:
    """Return mean and unbiased standard deviation over time, [batch, frames, width] -> [batch, 2 width]."""
    mask = valid_mask(lengths, frames.shape[1])[..., None]
    count = lengths[:, None]
    mean = (frames * mask).sum(dim=1) / count
    variance = ((frames - mean[:, None]) ** 2 * mask).sum(dim=1) / (count - 1)
    return torch.cat([mean, _safe_sqrt(variance)], dim=1)


def _safe_sqrt(variance: Tensor) -> Tensor:
    """The square root with a gradient of 0 at 0, where a dead unit's would be infinite; torch.std does the same."""
    dead = variance == 0
    return torch.where(dead, 0.0, torch.where(dead, 1.0, variance).sqrt())


def am_softmax(cosines: Tensor, speakers: Tensor, scale: float, margin: float) -> Tensor:
    """Return the mean additive-margin softmax loss [] of cosines [batch, speakers].

    `speakers` [batch] are the indices of the true ones.
    """
    true = torch.arange(cosines.shape[1], device=cosines.device) == speakers[:, None]
    return F.cross_entropy(scale * (cosines - margin * true), speakers)
