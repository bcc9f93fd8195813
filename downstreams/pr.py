"""PR, phoneme recognition: which phones are spoken in an utterance, in order.

Protocol: SUPERB (arXiv 2105.01051, section 3.1) as s3prl's `downstream/ctc` runs it with `libriphone.yaml`. The phones
of all words in a row, without word boundaries, closed by `<eos>`; two linear layers on each frame; CTC; greedy
decoding; phone error rate over the corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from downstreams.base import FrameTask, HeadSettings, Prediction, Scores, Setup, TrainingSettings
from downstreams.batching import buckets
from downstreams.batching.sampling import BatchSource
from downstreams.batching.targets import Targets
from downstreams.metrics import error_rate
from downstreams.metrics.scores import Metric, Score
from downstreams.task_types import ctc, label_forms
from downstreams.task_types.official_corpus import OfficialCorpus, numbered
from downstreams.text.vocabulary import ARPABET, SPECIALS, Tokens
from superb_eval.data.bounds import Width
from superb_eval.data.manifest import Corpus, Manifest, Utterance

if TYPE_CHECKING:
    from torch import Tensor, nn


class PhoneHead(HeadSettings):
    """`projector_dim`: width of the projection of each frame."""

    projector_dim: Width = 256


class PhonemeRecognition(FrameTask):
    """The phones are the manifest's column `phones`, with spaces between them.

    The outputs are the protocol's 74 where these suffice for the training rows (ARPAbet with stress), else `<pad>`,
    `<eos>`, `<unk>` and the phones of the training rows. Others in dev or test become `<unk>`, as in the protocol.
    """

    name = "pr"
    title = "phoneme recognition"
    columns = ("phones",)
    metrics = (Metric("per", "PER", higher_is_better=False),)
    whole = True
    Head = PhoneHead
    LabelForm = label_forms.Classes
    hub_task = "automatic-speech-recognition"
    paper_position = 0
    official_corpus = OfficialCorpus(
        (28_539, 2_703, 2_620), 12.0, [*SPECIALS, *numbered(71)], lambda frames: [5] * (frames // 5)
    )

    @classmethod
    def learn(cls, corpus: Corpus, head: Any) -> list[str]:
        """Return the names of the outputs; see `TrainedTask.learn`."""
        del head
        phones = {phone for u in corpus.splits["train"] for phone in u.labels["phones"].split()}
        return [*SPECIALS, *(ARPABET if phones <= set(ARPABET) else sorted(phones))]

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.vocabulary = Tokens(setup.labels)

    def head(self, dim: int) -> nn.Module:
        """See `TrainedTask.head`."""
        from downstreams.nets.heads import FrameHead

        return FrameHead(dim, self.setup.head.projector_dim, len(self.labels))

    def target(self, utterance: Utterance) -> list[int]:
        """Return the outputs of the utterance's phones, and `<eos>`."""
        return self.vocabulary.encode(utterance.labels["phones"])

    def remarks(self, manifest: Manifest, frames: Sequence[int]) -> list[str]:
        """Return a sentence on rows with more phones than frames, and on those with phones that have no output."""
        return ctc.remarks(manifest, frames, [self.target(u) for u in manifest], self.vocabulary.unknown)

    def loss(self, output: Tensor, lengths: Tensor, targets: Targets) -> Tensor:
        """Return the CTC loss of logits [batch, frames, outputs]."""
        return ctc.loss(output, lengths, targets, self.vocabulary.blank)

    def decode(self, output: Tensor, lengths: Tensor) -> list[str]:
        """Return the phones of each utterance, with spaces between them."""
        return [self.vocabulary.decode(path) for path in ctc.greedy(output, lengths, self.vocabulary.blank)]

    def scores(self, decoded: Sequence[str], outputs: Sequence[Tensor], lengths: Sequence[int]) -> list[Scores]:
        """Return the mean log probability of each utterance's outputs."""
        del decoded
        return [ctc.mean_log_probability(logits, n) for logits, n in zip(outputs, lengths, strict=True)]

    def truth(self, utterance: Utterance) -> str:
        """Return the phones of the manifest, those outside the vocabulary as `<unk>`."""
        return self.vocabulary.decode(self.target(utterance))

    def sampler(self, train: Manifest, seconds: Sequence[float], settings: TrainingSettings, seed: int) -> BatchSource:
        """Return overlapping buckets of utterances with labels of similar length."""
        labels = [len(self.target(u)) for u in train]
        return buckets.Buckets(buckets.overlapping_buckets(labels, seconds, settings.batch_size), seed)

    def score(self, rows: Sequence[Prediction]) -> list[Score]:
        """Return the phone error rate."""
        counted = error_rate.word_edits([row.truth for row in rows], [row.answer for row in rows])
        return [error_rate.error_rate(self.metrics[0], counted)]

    def chance(self, rows: Sequence[Prediction]) -> float:
        """Return the error rate of always answering with the most frequent phone, at the best number of repeats."""
        return error_rate.constant_word_error_rate([row.truth for row in rows])
