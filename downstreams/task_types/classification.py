"""What KS, SID and ER share: one label of a closed set for a whole utterance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from downstreams.base import (
    HeadSettings,
    Prediction,
    Scores,
    UtteranceTask,
    accuracy,
    class_probabilities,
    closed_set,
    majority,
    of_several_heads,
)
from downstreams.batching.targets import Targets
from downstreams.metrics.scores import Metric, Score
from downstreams.task_types import label_forms
from superb_eval.data.bounds import Width
from superb_eval.data.manifest import Corpus, Utterance
from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the mean cross-entropy [] of logits [batch, classes], or [heads] of [heads, batch, classes].

    Several heads have the operations, and so the bits, into which `torch.vmap` takes the library's function apart.
    """
    if logits.dim() == 2:
        return torch.nn.functional.cross_entropy(logits, classes)
    chosen = classes[None, :, None].expand(len(logits), -1, 1)
    losses = -logits.log_softmax(dim=-1).gather(-1, chosen).squeeze(-1)
    return losses.sum(dim=-1) / losses.new_full((), len(classes))


class ProjectorHead(HeadSettings):
    """`projector_dim`: width of the projection before the mean over time."""

    projector_dim: Width = 256


class Classification(UtteranceTask):
    """Projector, mean over time, linear; cross-entropy; accuracy.

    Classes are those of the training rows: the `official_classes` first and in their order, then others, sorted.
    """

    label_column: ClassVar[str]
    official_classes: ClassVar[tuple[str, ...]] = ()
    metrics = (Metric("acc", "ACC", higher_is_better=True),)
    Head = ProjectorHead
    LabelForm = label_forms.Classes

    @classmethod
    def learn(cls, corpus: Corpus, head: Any) -> list[str]:
        """Return the classes; see `TrainedTask.learn`."""
        del head
        labels = closed_set(corpus, cls.label_column)
        return [c for c in cls.official_classes if c in labels] + [c for c in labels if c not in cls.official_classes]

    def head(self, dim: int) -> nn.Module:
        """See `TrainedTask.head`."""
        from downstreams.nets.heads import UtteranceLevel

        return UtteranceLevel(dim, self.setup.head.projector_dim, len(self.labels))

    def target(self, utterance: Utterance) -> int:
        """Return the index of the utterance's class."""
        return int(self.labels.index(self.truth(utterance)))

    @of_several_heads
    def utterance_loss(self, output: Tensor, targets: Targets) -> Tensor:
        """Return the cross-entropy of logits [batch, classes], or [heads] of [heads, batch, classes]."""
        return cross_entropy(output, targets.values)

    def utterance_answers(self, output: Tensor) -> list[str]:
        """Return the most probable class of each utterance."""
        return [self.labels[i] for i in output.argmax(dim=-1).tolist()]

    def scores(self, decoded: Sequence[str], outputs: Sequence[Tensor], lengths: Sequence[int]) -> list[Scores]:
        """Return the probabilities of the most probable classes, from logits [classes]."""
        del decoded, lengths
        return [class_probabilities(logits, self.labels) for logits in outputs]

    def truth(self, utterance: Utterance) -> str:
        """Return the class in the manifest."""
        return utterance.labels[self.label_column]

    def score(self, rows: Sequence[Prediction]) -> list[Score]:
        """Return the accuracy."""
        return [accuracy(self.metrics[0], rows)]

    def chance(self, rows: Sequence[Prediction]) -> float:
        """Return the accuracy of always answering with the most frequent class of the test set."""
        return majority(rows)
