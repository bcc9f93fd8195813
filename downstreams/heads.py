"""Heads that several tasks share."""

from __future__ import annotations

from torch import Tensor, nn

from downstreams.lengths import mean_over_time


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

    def forward(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Return logits [batch, classes] of features [batch, dim], or [batch, frames, dim] with lengths [batch]."""
        projected = self.projector(features)
        pooled = projected if lengths is None else mean_over_time(projected, lengths)
        logits: Tensor = self.classifier(pooled)
        return logits
