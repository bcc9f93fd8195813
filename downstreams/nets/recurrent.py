"""The recurrent head of ASR and SF, and how heads run an LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import ClassVar

import torch
from torch import Tensor, nn

from downstreams.nets.renamed_keys import RenamedSubmodules
from downstreams.nets.specaug import SpecAugment
from downstreams.task_types.ctc import RecogniserSettings, stacked_lengths
from superb_eval.data.padding import copy_to, valid_mask


class BidirectionalLSTM(RenamedSubmodules):
    """One LSTM from the first frame to the last and one from the last valid frame to the first, side by side.

    On a GPU, torch's bidirectional LSTM on a packed sequence: cuDNN computes no padding, and both directions at once.
    Elsewhere the same on padded sequences, one direction after the other: the backward pass through a packed one took
    60 times as long on a CPU (6.2 s against 0.1 s for 8 utterances of 600 frames, width 64).
    """

    FORMER_NAMES: ClassVar = {"onward": "forward_lstm", "homeward": "backward_lstm"}

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.forward_lstm = nn.LSTM(dim, hidden_dim, batch_first=True)
        self.backward_lstm = nn.LSTM(dim, hidden_dim, batch_first=True)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return [batch, frames, 2 * hidden_dim] of features [batch, frames, dim].

        `lengths` [batch] are in frames, on the host. Frames beyond them have no meaning.
        """
        return self.packed(features, lengths) if features.is_cuda else self.padded(features, lengths)

    def packed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return what `forward` does, by one bidirectional LSTM on the valid frames alone."""
        batch, frames, _ = features.shape
        places, batch_sizes = packing(lengths, frames)
        places = copy_to(places, features.device)
        output = run_lstm([self.forward_lstm, self.backward_lstm], features.flatten(0, 1)[places], batch_sizes)
        return output.new_zeros(batch * frames, output.shape[1]).index_copy(0, places, output).view(batch, frames, -1)

    def padded(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return what `forward` does, by one LSTM after the other on padded sequences."""
        forward = run_lstm([self.forward_lstm], features)
        backward = run_lstm([self.backward_lstm], reverse_valid_frames(features, lengths))
        return torch.cat([forward, reverse_valid_frames(backward, lengths)], dim=-1)


def run_lstm(directions: Sequence[nn.LSTM], features: Tensor, batch_sizes: Tensor | None = None) -> Tensor:
    """Return the output of one LSTM layer, [batch, frames, directions * hidden] of features [batch, frames, dim].

    `directions` is one LSTM, or that of each direction. With `batch_sizes`, features and output are packed sequences,
    [frames of all, ...] (`packing`).

    Under autocast it is computed in bfloat16 on a GPU, else in the weights' own type: torch's autocast would take
    float16 on a GPU, in which gradients underflow, and fails on processors without bfloat16.
    """
    first, both = directions[0], len(directions) > 1
    reduced = features.is_cuda and torch.is_autocast_enabled("cuda")
    dtype = torch.bfloat16 if reduced else next(first.parameters()).dtype
    batch = len(features) if batch_sizes is None else int(batch_sizes[0])
    start = features.new_zeros(len(directions), batch, first.hidden_size, dtype=dtype)
    settings = (True, 1, 0.0, first.training, both)  # biases, layers, dropout
    with torch.autocast(features.device.type, enabled=False):
        features, weights = features.to(dtype), _weights(directions, dtype)
        if batch_sizes is None:
            return torch.lstm(features, (start, start), weights, *settings, True)[0]
        return torch.lstm(features, batch_sizes, (start, start), weights, *settings)[0]


def _weights(directions: Sequence[nn.LSTM], dtype: torch.dtype) -> list[Tensor]:
    """Return the weights of a layer as torch's LSTM takes them: of each direction two matrices and two biases.

    Unless they are one LSTM's own they are slices of one tensor in cuDNN's order, all matrices first: it would copy
    those that aren't at each call, with a warning.
    """
    own: list[list[Tensor]] = [list(direction.parameters()) for direction in directions]
    if len(own) == 1 and dtype == own[0][0].dtype:
        return own[0]
    ordered = [*chain(*(weights[:2] for weights in own)), *chain(*(weights[2:] for weights in own))]
    flat = torch.cat([weights.flatten() for weights in ordered]).to(dtype)
    parts = torch.split(flat, [weights.numel() for weights in ordered])
    slices = [part.view_as(weights) for part, weights in zip(parts, ordered, strict=True)]
    half = len(slices) // 2
    return [*chain(*(slices[k : k + 2] + slices[half + k : half + k + 2] for k in range(0, half, 2)))]


def packing(lengths: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Return which frames of a padded batch make the packed sequence, [frames of all], and the utterances at each step.

    A packed sequence holds the first frame of each utterance, the longest first, then the second of each, and so on.
    Frames are numbered through the batch, each utterance padded to `frames`; `lengths` [batch] are on the host.
    """
    ordered, utterances = lengths.sort(descending=True, stable=True)
    valid = valid_mask(ordered, int(ordered[0])).T
    numbers = utterances * frames + torch.arange(len(valid))[:, None]
    return numbers[valid], valid.sum(dim=1)


def reverse_valid_frames(padded: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the valid frames of each utterance, [batch, frames, dim]; padding stays after them."""
    frames = torch.arange(padded.shape[1], device=padded.device)
    last = copy_to(lengths, padded.device)[:, None] - 1
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
        """Return logits [batch, stacked frames, outputs] of [batch, frames, dim].

        `lengths` [batch] are in frames, on the host.
        """
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
