"""IC, intent classification: several slots of a spoken command at once, each with a closed set of values.

Protocol: SUPERB (arXiv 2105.01051, section 3.1) as s3prl's `downstream/fluent_commands` runs it on Fluent Speech
Commands: action, object and location. Projector, mean over time, one linear output that is split into a softmax for
each slot; the sum of their cross-entropies; an answer is correct where every slot is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from downstreams.base import (
    Prediction,
    Scores,
    Setup,
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
from downstreams.task_types.classification import ProjectorHead, cross_entropy
from downstreams.task_types.official_corpus import OfficialCorpus, numbered
from superb_eval.data.bounds import at_most_items
from superb_eval.data.manifest import Corpus, Utterance
from superb_eval.errors import UserError, listed
from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

SLOTS = ("action", "object", "location")
"""The label columns of Fluent Speech Commands, in the order of the protocol's output."""


class IntentHead(ProjectorHead):
    """`slots`: the label columns to recognise; the output holds their values in this order."""

    slots: Annotated[tuple[str, ...], at_most_items(100, "each is a label column")] = Field(SLOTS, min_length=1)


class IntentClassification(UtteranceTask):
    """`labels` maps each slot to its values, in the order of their first training rows."""

    version = 2
    name = "ic"
    title = "intent classification"
    columns = SLOTS
    metrics = (Metric("acc", "ACC", higher_is_better=True),)
    Head = IntentHead
    LabelForm = label_forms.SlotClasses
    paper_position = 7
    official_corpus = OfficialCorpus(
        (23_132, 3_118, 3_793),
        2.3,
        {"action": numbered(6), "object": numbered(14), "location": numbered(4)},
        lambda frames: [0, 0, 0],
    )

    @classmethod
    def needs(cls, head: Any) -> tuple[str, ...]:
        """Return the slots that the recipe names."""
        slots: tuple[str, ...] = head.slots
        return slots

    @classmethod
    def label_set(cls, utterance: Utterance, head: Any) -> frozenset[str]:
        """Return the utterance's value of each slot."""
        return frozenset(f"{slot}={utterance.labels.get(slot)}" for slot in head.slots)

    @classmethod
    def column_advice(cls, present: Sequence[str]) -> str:
        """Return the option that names the slots of this manifest, among the columns that it has."""
        named = f'such as -o "head.slots=[{", ".join(present[:8])}]"' if present else "each of which is a column"
        return f"Or name the slots to recognise, {named}."

    @classmethod
    def learn(cls, corpus: Corpus, head: Any) -> dict[str, list[str]]:
        """Return the values of each slot; see `TrainedTask.learn`."""
        train = corpus.splits["train"]
        absent = [slot for slot in head.slots if slot not in train.utterances[0].labels]
        if absent:
            present = listed(list(train.utterances[0].labels))
            raise UserError(f"{corpus.name} has no label {', '.join(absent)} (found: {present}). Fix -o head.slots.")
        _check_values(corpus, head.slots)
        return {slot: list(dict.fromkeys(train.labels(slot))) for slot in head.slots}

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.sizes = [len(values) for values in self.labels.values()]

    def head(self, dim: int) -> nn.Module:
        """See `TrainedTask.head`."""
        from downstreams.nets.heads import UtteranceLevel

        return UtteranceLevel(dim, self.setup.head.projector_dim, sum(self.sizes))

    def target(self, utterance: Utterance) -> list[int]:
        """Return the index of each slot's value among the values of that slot."""
        return [values.index(utterance.labels[slot]) for slot, values in self.labels.items()]

    @of_several_heads
    def utterance_loss(self, output: Tensor, targets: Targets) -> Tensor:
        """Return the sum over slots of the cross-entropy of their part of the logits [..., batch, values of all]."""
        parts = torch.split(output, self.sizes, dim=-1)
        losses = [cross_entropy(part, targets.values[:, k]) for k, part in enumerate(parts)]
        return torch.stack(losses, dim=-1).sum(dim=-1)

    def utterance_answers(self, output: Tensor) -> list[str]:
        """Return the most probable value of each slot, as JSON, like `truth`."""
        best = torch.stack([part.argmax(dim=-1) for part in torch.split(output, self.sizes, dim=-1)], dim=-1)
        return [
            self._to_json([self.labels[s][i] for s, i in zip(self.labels, row, strict=True)]) for row in best.tolist()
        ]

    def scores(self, decoded: Sequence[str], outputs: Sequence[Tensor], lengths: Sequence[int]) -> list[Scores]:
        """Return the probabilities of the most probable values of each slot, from logits [values of all slots]."""
        del decoded, lengths
        return [
            {
                slot: class_probabilities(part, self.labels[slot])
                for slot, part in zip(self.labels, torch.split(logits, self.sizes), strict=True)
            }
            for logits in outputs
        ]

    def truth(self, utterance: Utterance) -> str:
        """Return the slots and values of the manifest, as JSON: `{"action": "activate", ...}`."""
        return self._to_json([utterance.labels[slot] for slot in self.labels])

    def show(self, decoded: Sequence[str]) -> list[str]:
        """Return the slots and values of each utterance, in words."""
        return [", ".join(f"{slot} {value}" for slot, value in json.loads(answer).items()) for answer in decoded]

    def score(self, rows: Sequence[Prediction]) -> list[Score]:
        """Return the share of utterances with every slot correct."""
        return [accuracy(self.metrics[0], rows)]

    def chance(self, rows: Sequence[Prediction]) -> float:
        """Return the accuracy of always answering with the most frequent intent of the test set."""
        return majority(rows)

    def _to_json(self, values: Sequence[str]) -> str:
        return json.dumps(dict(zip(self.labels, values, strict=True)), ensure_ascii=False)


def _check_values(corpus: Corpus, slots: Sequence[str]) -> None:
    """Refuse values that the training rows lack, those of all slots at once."""
    faults = []
    for slot in slots:
        try:
            closed_set(corpus, slot)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
