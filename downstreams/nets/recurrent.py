"""The recurrent head of ASR and SF."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from downstreams.nets.renamed_keys import RenamedSubmodules
from downstreams.nets.specaug import SpecAugment
from downstreams.task_types.ctc import RecogniserSettings, stacked_lengths


class BidirectionalLSTM(RenamedSubmodules):
    """One LSTM from the first frame to the last and one from the last valid frame to the first, side by side.

    Gives on padded sequences what torch's bidirectional LSTM gives on a packed one: the backward pass through that
    took 60 times as long on a CPU (6.2 s against 0.1 s for 8 utterances of 600 frames, width 64).
    """

    FORMER_NAMES: ClassVar = {"onward": "forward_lstm", "homeward": "backward_lstm"}

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.forward_lstm = nn.LSTM(dim, hidden_dim, batch_first=True)
        self.backward_lstm = nn.LSTM(dim, hidden_dim, batch_first=True)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return [batch, frames, 2 * hidden_dim] of features [batch, frames, dim]; `lengths` [batch] in frames."""
        forward, _ = self.forward_lstm(features)
        backward, _ = self.backward_lstm(reverse_valid_frames(features, lengths))
        return torch.cat([forward, reverse_valid_frames(backward, lengths)], dim=-1)


def reverse_valid_frames(padded: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the valid frames of each utterance, [batch, frames, dim]; padding stays after them."""
    frames = torch.arange(padded.shape[1], device=padded.device)
    last = lengths.to(padded.device)[:, None] - 1
    order = torch.where(frames <= last, last - frames, frames)
    return padded.gather(1, order[..., None].expand_as(padded))


class Recogniser(nn.Module):
    """Mask in training, project, bidirectional LSTMs, classify each frame.

    SpecAugment; `Linear(dim, projector_dim)`; `layers` times a bidirectional LSTM and dropout; `Linear(2 * hidden_dim,
    outputs)` (s3prl `asr/expert.py`, `asr/model.py:RNNs`). Frames are stacked before they are projected, where `stack`
    is not 1; the protocol does not stack.
    """

    def __init__(self, dim: int, outputs: int, settings: RecogniserSettings, stack: int = 1) -> None:
        super().__init__()
        self.stack = stack
        self.specaug = SpecAugment(settings.specaug) if settings.specaug else None
        self.projector = nn.Linear(dim * stack, settings.projector_dim)
        widths = [settings.projector_dim, *[2 * settings.hidden_dim] * (settings.layers - 1)]
        self.recurrent = nn.ModuleList(BidirectionalLSTM(width, settings.hidden_dim) for width in widths)
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier = nn.Linear(2 * settings.hidden_dim, outputs)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return logits [batch, stacked frames, outputs] of [batch, frames, dim]; `lengths` [batch] in frames."""
        if self.specaug is not None and self.training:
            features = self.specaug(features, lengths)
        hidden, lengths = self.projector(stack_frames(features, self.stack)), stacked_lengths(lengths, self.stack)
        for layer in self.recurrent:
            hidden = self.dropout(layer(hidden, lengths))
        logits: Tensor = self.classifier(hidden)
        return logits


def stack_frames(features: Tensor, stack: int) -> Tensor:
    """Put `stack` frames side by side: [batch, frames, dim] -> [batch, ceil(frames / stack), dim * stack]."""
    padded = nn.functional.pad(features, (0, 0, 0, -features.shape[1] % stack))
    return padded.reshape(len(features), -1, features.shape[2] * stack)
