"""KS, keyword spotting: which of twelve classes is spoken in a clip of one second.

Protocol: SUPERB (arXiv 2105.01051, section 3.1) as s3prl's `downstream/speech_commands` runs it. Ten keywords,
`_unknown_` for any other word and `_silence_`; projector, mean over time, linear; cross-entropy; accuracy. Training
draws classes equally often, and so does the dev set that chooses the checkpoint; the test set is taken as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from downstreams.base import HeadSettings, Metric, Score, Task
from downstreams.heads import UtteranceLevel
from superb_eval.manifest import Corpus, Manifest, Utterance, check_labels

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

    def __init__(self, corpus: Corpus, head: HeadSettings) -> None:
        assert isinstance(head, KeywordHead)  # noqa: S101 - for the type checker
        self.projector_dim = head.projector_dim
        train = corpus.splits["train"]
        for split in ("dev", "test"):
            check_labels(train, corpus.splits[split], "keyword")
        seen = {u.labels["keyword"] for u in train}
        self.labels = [c for c in OFFICIAL if c in seen] + sorted(seen - set(OFFICIAL))

    def head(self, dim: int) -> nn.Module:
        """See `Task.head`."""
        return UtteranceLevel(dim, self.projector_dim, len(self.labels))

    def target(self, utterance: Utterance) -> int:
        """Return the index of the utterance's class."""
        return self.labels.index(self.truth(utterance))

    def loss(self, output: Tensor, targets: Sequence[int]) -> Tensor:
        """Return the cross-entropy of logits [batch, classes]."""
        return nn.functional.cross_entropy(output, torch.as_tensor(targets, device=output.device))

    def decode(self, output: Tensor) -> list[str]:
        """Return the most probable class of each utterance."""
        return [self.labels[i] for i in output.argmax(dim=-1).tolist()]

    def truth(self, utterance: Utterance) -> str:
        """Return the class that the manifest gives."""
        return utterance.labels["keyword"]

    def score(self, truths: Sequence[str], answers: Sequence[str]) -> list[Score]:
        """Return the accuracy."""
        right = np.array([t == a for t, a in zip(truths, answers, strict=True)], dtype=np.float64)
        return [Score(self.metrics[0], right, np.ones_like(right))]

    def classes(self, manifest: Manifest) -> list[str]:
        """See `Task.classes`."""
        return [self.truth(u) for u in manifest]

    def chance(self, test: Manifest) -> float:
        """Return the accuracy of always answering with the most frequent class of the test set."""
        counts = Counter(self.classes(test))
        return 100.0 * max(counts.values()) / len(test)
