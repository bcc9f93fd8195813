"""ASV, automatic speaker verification: are two utterances of one speaker, who is not in the training data?

Protocol: SUPERB (arXiv 2105.01051, section 3.1) as s3prl's `downstream/sv_voxceleb1` runs it. An x-vector network is
trained to classify the training speakers (AM-softmax); a trial's score is the cosine of two embeddings; equal error
rate. The published figure is that of the checkpoint, one of ten, that is best on the test trials: the record has it
as historical. The strict one takes the checkpoint that is best on trials of other speakers, the dev set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from downstreams.base import HeadSettings, Prediction, Scores, UtteranceTask, known_speaker
from downstreams.batching.targets import Targets
from downstreams.metrics import eer
from downstreams.metrics.scores import Metric, Score
from downstreams.task_types import label_forms
from downstreams.task_types.official_corpus import OfficialCorpus, numbered
from superb_eval.data import limits
from superb_eval.data.bounds import Count, Seconds, Weight, Width
from superb_eval.data.manifest import NO_SPEAKER, Corpus, Manifest, Utterance
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


class VerificationHead(HeadSettings):
    """`hidden` and `wide`: widths of the network, and of its last layer before pooling.

    `scale` and `margin` are those of AM-softmax. `one_frame_more`: in training, pool padded utterances over one frame
    more, as s3prl does (`XVector`).
    """

    hidden: Width = 512
    wide: Width = 1500
    scale: Weight = 30.0
    margin: Weight = 0.4
    one_frame_more: bool = True


class VerificationCorpus(CorpusSettings):
    """Which utterances and speakers train."""

    min_seconds: Seconds = Field(
        0.0, ge=0, description="training utterances must last longer, in s, after trimming; 2 in the protocol"
    )
    dev_speakers: Count = Field(
        40, ge=2, description="official corpus: training speakers held out for trials that choose the checkpoint"
    )


class SpeakerVerification(UtteranceTask):
    """Labels are the training speakers, sorted: the loss needs them, testing doesn't."""

    version = 2
    name = "asv"
    title = "speaker verification"
    columns = ()
    metrics = (Metric("eer", "EER", higher_is_better=False),)
    best_on_test = True
    pooled = False
    Head = VerificationHead
    LabelForm = label_forms.Classes
    CorpusSchema = VerificationCorpus
    unit = "trials"
    trials = True
    truth_names: ClassVar = {"1": "one speaker", "0": "two speakers"}
    paper_position = 5
    official_corpus = OfficialCorpus((148_642, 0, 4_715), 8.2, numbered(1_211))

    @classmethod
    def learn(cls, corpus: Corpus, head: Any) -> list[str]:
        """Return the training speakers; see `TrainedTask.learn`."""
        del head
        speakers = {u.speaker for u in corpus.splits["train"]} - {NO_SPEAKER}
        for name in ("dev", "test"):
            _check_trials(corpus.splits[name])
            shared = sorted(speakers & {u.speaker for u in corpus.splits[name]})
            if shared:
                raise UserError(
                    f"{corpus.splits[name].source}: {len(shared)} speaker(s) of {name} are in train too: "
                    f"{', '.join(shared[:12])}. Verification needs speakers that train lacks: move them to one split."
                )
        return sorted(speakers)

    @classmethod
    def limited(cls, corpus: Corpus, count: int, head: Any) -> Corpus:
        """Return training utterances of as many speakers as possible; of dev and test, those of some trials."""
        del head
        train = replace(corpus, splits={"train": corpus.splits["train"]})
        few = limits.by_labels(train, count, lambda utterance: frozenset([utterance.speaker]))
        trials = {name: limits.by_trials(corpus.splits[name], count) for name in ("dev", "test")}
        return replace(corpus, splits={**few.splits, **trials})

    def head(self, dim: int) -> nn.Module:
        """See `TrainedTask.head`."""
        from downstreams.nets.xvector import XVector

        settings = self.setup.head
        return XVector(dim, len(self.labels), settings.hidden, settings.wide, settings.one_frame_more)

    def target(self, utterance: Utterance) -> int:
        """Return the index of the utterance's speaker."""
        return int(self.labels.index(utterance.speaker))

    def utterance_loss(self, output: Tensor, targets: Targets) -> Tensor:
        """Return the AM-softmax loss of cosines [batch, speakers]."""
        from downstreams.nets.xvector import am_softmax

        return am_softmax(output, targets.values, self.setup.head.scale, self.setup.head.margin)

    def utterance_answers(self, output: Tensor) -> list[NDArray[np.float32]]:
        """Return each utterance's embedding [hidden], of length 1."""
        return list(output.float().cpu().numpy())

    def rows(self, manifest: Manifest, decoded: Sequence[NDArray[np.float32]]) -> list[Prediction]:
        """Return a row for each trial: truth is 1 for one speaker and 0 for two, the answer is the cosine."""
        embeddings = {u.id: embedding for u, embedding in zip(manifest, decoded, strict=True)}
        speakers = {u.id: known_speaker(u) for u in manifest}
        return [
            Prediction(
                f"{t.enroll} {t.test}",
                str(int(t.target)),
                f"{float(embeddings[t.enroll] @ embeddings[t.test]):.7f}",
                speaker=f"{speakers[t.enroll]}\t{speakers[t.test]}",
            )
            for t in manifest.trials
        ]

    def show(self, decoded: Sequence[NDArray[np.float32]]) -> list[str]:
        """Return each file's cosine with the first file: the higher, the likelier one speaker."""
        return [f"{float(embedding @ decoded[0]):.3f} (cosine with the first file)" for embedding in decoded]

    def scores(
        self, decoded: Sequence[NDArray[np.float32]], outputs: Sequence[Tensor], lengths: Sequence[int]
    ) -> list[Scores]:
        """Return each file's cosine with the first file."""
        del outputs, lengths
        return [{"cosine": round(float(embedding @ decoded[0]), 4)} for embedding in decoded]

    def score(self, rows: Sequence[Prediction]) -> list[Score]:
        """Return the equal error rate over trials."""
        targets = np.array([row.truth == "1" for row in rows])
        return [eer.score(self.metrics[0], targets, np.array([float(row.answer) for row in rows]))]

    def chance(self, rows: Sequence[Prediction]) -> float:
        """Return the equal error rate of random scores."""
        del rows
        return 50.0


def _check_trials(split: Manifest) -> None:
    kinds = {trial.target for trial in split.trials}
    if kinds != {True, False}:
        raise UserError(
            f"{split.source}: {split.split} has {len(split.trials)} trial(s), of which "
            f"{sum(t.target for t in split.trials)} are of one speaker; an equal error rate needs both kinds. "
            "Add trials to its list (columns enroll, test, target)."
        )
