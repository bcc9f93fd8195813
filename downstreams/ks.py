"""KS, keyword spotting: which of twelve classes is spoken in a clip of one second.

Protocol: SUPERB (arXiv 2105.01051, section 3.1) as s3prl's `downstream/speech_commands` runs it. Ten keywords,
`_unknown_` for any other word and `_silence_`; projector, mean over time, linear; cross-entropy; accuracy. Training
draws classes equally often, and so does the dev set that chooses the checkpoint; the test set is taken as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from downstreams.base import HeadSettings, Row, Task, accuracy, closed_set, majority
from downstreams.heads import UtteranceLevel
from downstreams.scores import Metric, Score
from superb_eval.manifest import Corpus, Utterance

OFFICIAL = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "_unknown_", "_silence_")
"""The classes of Speech Commands v0.01 in the protocol's order."""


class KeywordHead(HeadSettings):
    """`projector_dim`: width of the projection before the mean over time."""

    projector_dim: int = 256


class KeywordSpotting(Task):
    """Classes are those of the training rows, the official ones first and in their order."""

    name = "ks"
    title = "keyword spotting"
    columns = ("keyword",)
    label_column = "keyword"
    metrics = (Metric("acc", "ACC", higher_is_better=True),)
    pooled = True
    Head = KeywordHead

    @classmethod
    def learn(cls, corpus: Corpus, head: Any) -> list[str]:
        """Return the classes; see `Task.learn`."""
        del head
        seen = closed_set(corpus, "keyword")
        return [c for c in OFFICIAL if c in seen] + [c for c in seen if c not in OFFICIAL]

    def head(self, dim: int) -> nn.Module:
        """See `Task.head`."""
        return UtteranceLevel(dim, self.setup.head.projector_dim, len(self.labels))

    def target(self, utterance: Utterance) -> int:
        """Return the index of the utterance's class."""
        return int(self.labels.index(self.truth(utterance)))

    def loss(self, output: Tensor, lengths: Tensor | None, targets: Sequence[int]) -> Tensor:
        """Return the cross-entropy of logits [batch, classes]."""
        del lengths
        return nn.functional.cross_entropy(output, torch.as_tensor(targets, device=output.device))

    def decode(self, output: Tensor, lengths: Tensor | None) -> list[str]:
        """Return the most probable class of each utterance."""
        del lengths
        return [self.labels[i] for i in output.argmax(dim=-1).tolist()]

    def truth(self, utterance: Utterance) -> str:
        """Return the class that the manifest gives."""
        return utterance.labels["keyword"]

    def score(self, rows: Sequence[Row]) -> list[Score]:
        """Return the accuracy."""
        return [accuracy(self.metrics[0], rows)]

    def chance(self, rows: Sequence[Row]) -> float:
        """Return the accuracy of always answering with the most frequent class of the test set."""
        return majority(rows)
