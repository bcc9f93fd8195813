"""The networks of heads, except the recurrent one of ASR and SF (`recurrent`) and that of ASV (`xvector`)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from downstreams.metrics.diarization import EXTRA_FRAMES
from downstreams.nets.recurrent import run_lstm
from superb_eval.data.padding import copy_to, mean_over_time, valid_mask


class UtteranceLevel(nn.Module):
    """Project each frame, average over time, classify: the head of KS, SID, IC and ER.

    `Linear(dim, projector_dim)`, mean over valid frames, `Linear(projector_dim, classes)`, with nothing non-linear in
    between (s3prl `downstream/model.py:UtteranceLevel`, `MeanPooling`, and the projector of each expert). So the mean
    may as well come first: features that were pooled before give the same output, up to rounding.
    """

    def __init__(self, dim: int, projector_dim: int, classes: int) -> None:
        super().__init__()
        self.projector = nn.Linear(dim, projector_dim)
        self.classifier = nn.Linear(projector_dim, classes)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return logits [batch, classes] of means [batch, dim], or of [batch, frames, dim] with lengths [batch]."""
        pooled = projected = self.projector(features)
        if projected.dim() > 2:
            pooled = mean_over_time(projected, copy_to(lengths, projected.device))
        logits: Tensor = self.classifier(pooled)
        return logits

    def of_several(self, weights: Mapping[str, Tensor], means: Tensor) -> Tensor:
        """Return logits [heads, batch, classes] of means [heads, batch, dim], or of [1, batch, dim] for all of them.

        `weights` are those of several heads like this one, by name, [heads, ...]. Each head has the bits that it has
        in any other number of heads.
        """
        hidden = means
        for layer in ("projector", "classifier"):
            matrices, biases = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
            hidden = torch.bmm(hidden.expand(len(matrices), -1, -1), matrices.mT) + biases[:, None]
        return hidden


class FrameHead(nn.Module):
    """Project each frame and classify it, with nothing in between (s3prl `ctc/expert.py`, `model.py:FrameLevel`)."""

    def __init__(self, dim: int, projector_dim: int, outputs: int) -> None:
        super().__init__()
        self.projector = nn.Linear(dim, projector_dim)
        self.classifier = nn.Linear(projector_dim, outputs)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return logits [batch, frames, outputs] of features [batch, frames, dim]."""
        del lengths
        logits: Tensor = self.classifier(self.projector(features))
        return logits


class SpeakerActivity(nn.Module):
    """`LSTM(dim, hidden)`, one layer, forward in time; `Linear(hidden, speakers)` (s3prl `diarization/model.py`)."""

    def __init__(self, dim: int, hidden: int, speakers: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(dim, hidden, batch_first=True)
        self.linear = nn.Linear(hidden, speakers)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return logits [batch, frames + EXTRA_FRAMES, speakers] of features [batch, frames, dim] with lengths [batch].

        Labels that outnumber frames have logits too: those of the utterance's last frame, repeated. In training
        utterances shorter than the longest of their batch have zeros there (s3prl `diarization/expert.py` repeats the
        last frame of the padded batch; it evaluates one recording at a time). Logits of the frames before don't
        change: the LSTM runs forward only.
        """
        lengths = copy_to(lengths, features.device)
        index = torch.arange(features.shape[1] + EXTRA_FRAMES, device=features.device)
        index = torch.minimum(index[None], lengths[:, None] - 1)
        longer = torch.gather(features, 1, index[..., None].expand(-1, -1, features.shape[2]))
        if self.training:
            shorter = lengths < features.shape[1]
            beyond = ~valid_mask(lengths, longer.shape[1]) & shorter[:, None]
            longer = longer.masked_fill(beyond[..., None], 0.0)
        logits: Tensor = self.linear(run_lstm([self.rnn], longer))
        return logits
