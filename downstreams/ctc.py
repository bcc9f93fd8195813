"""What PR, ASR and SF share: the CTC loss, greedy decoding, and the recurrent head of ASR and SF."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from downstreams.base import HeadSettings
from downstreams.specaug import SpecAugment, SpecAugmentSettings
from downstreams.text import VocabularySettings


def loss(logits: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]], blank: int) -> Tensor:
    """Return the CTC loss [] of logits [batch, frames, outputs].

    That of each utterance is divided by the length of its target, then they are averaged (torch's `mean`). An utterance
    that has fewer frames than its target needs counts zero (s3prl: `zero_infinity`).
    """
    labels = [torch.tensor(target, dtype=torch.long) for target in targets]
    return nn.functional.ctc_loss(
        logits.float().log_softmax(dim=-1).transpose(0, 1),
        pad_sequence(labels, batch_first=True).to(logits.device),
        lengths,
        torch.tensor([len(label) for label in labels], device=lengths.device),
        blank=blank,
        zero_infinity=True,
    )


def greedy(logits: Tensor, lengths: Tensor, blank: int) -> list[list[int]]:
    """Return the best output of each valid frame, repeats merged, then blanks left out, for each utterance.

    `logits` is [batch, frames, outputs], `lengths` [batch] in frames.
    """
    best = logits.argmax(dim=-1).cpu()
    paths = [torch.unique_consecutive(row[:n]).tolist() for row, n in zip(best, lengths.tolist(), strict=True)]
    return [[output for output in path if output != blank] for path in paths]


class RecogniserSettings(HeadSettings):
    """The head of ASR and SF; the defaults are the protocol's."""

    projector_dim: int = Field(1024, ge=1, description="width of the projection of each frame")
    hidden_dim: int = Field(1024, ge=1, description="width of each direction of each recurrent layer")
    layers: int = Field(2, ge=1, description="recurrent layers")
    dropout: float = Field(0.2, ge=0, lt=1, description="after each recurrent layer, in training")
    specaug: SpecAugmentSettings | None = Field(SpecAugmentSettings(), description="masks and warps in training")
    frame_samples: int | None = Field(
        None, ge=1, description="samples per frame of the head, at most: shorter ones are stacked; null: the upstream's"
    )
    vocabulary: VocabularySettings = Field("characters", description="or {sentencepiece: SIZE}")


def stacking(settings: RecogniserSettings, stride: int) -> int:
    """Return how many of the upstream's frames, of `stride` samples, make one of the head's."""
    return max(1, (settings.frame_samples or stride) // stride)


def stacked(features: Tensor, stack: int) -> Tensor:
    """Put `stack` frames side by side: [batch, frames, dim] -> [batch, ceil(frames / stack), dim * stack]."""
    padded = nn.functional.pad(features, (0, 0, 0, -features.shape[1] % stack))
    return padded.reshape(len(features), -1, features.shape[2] * stack)


def shortened(lengths: Tensor, stack: int) -> Tensor:
    """Return lengths [batch] in stacked frames."""
    return (lengths + stack - 1) // stack


class BidirectionalLSTM(nn.Module):
    """One LSTM from the first frame to the last and one from the last valid frame to the first, side by side.

    What torch's bidirectional LSTM gives on a packed sequence, on padded ones: the backward pass through a packed one
    took 60 times as long on a CPU (6.2 s against 0.1 s for 8 utterances of 600 frames, width 64).
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.onward = nn.LSTM(dim, hidden_dim, batch_first=True)
        self.homeward = nn.LSTM(dim, hidden_dim, batch_first=True)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return [batch, frames, 2 * hidden_dim] of features [batch, frames, dim]; `lengths` [batch] in frames."""
        onward, _ = self.onward(features)
        back, _ = self.homeward(turned(features, lengths))
        return torch.cat([onward, turned(back, lengths)], dim=-1)


def turned(padded: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the valid frames of each utterance, [batch, frames, dim]; padding stays behind them."""
    frames = torch.arange(padded.shape[1], device=padded.device)
    last = lengths.to(padded.device)[:, None] - 1
    order = torch.where(frames <= last, last - frames, frames)
    return padded.gather(1, order[..., None].expand_as(padded))


class Recogniser(nn.Module):
    """Mask in training, project, bidirectional LSTMs, classify each frame.

    SpecAugment; `Linear(dim, projector_dim)`; `layers` times a bidirectional LSTM and dropout; `Linear(2 * hidden_dim,
    outputs)` (s3prl `asr/expert.py`, `asr/model.py:RNNs`). Frames are stacked before they are projected, where `stack`
    is not 1; the protocol doesn't.
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
        hidden, lengths = self.projector(stacked(features, self.stack)), shortened(lengths, self.stack)
        for layer in self.recurrent:
            hidden = self.dropout(layer(hidden, lengths))
        logits: Tensor = self.classifier(hidden)
        return logits
