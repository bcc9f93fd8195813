"""ASR, automatic speech recognition: which words are spoken in an utterance.

Protocol: SUPERB (arXiv 2105.01051, section 3.1) as s3prl's `downstream/asr` runs it. Letters, `|` after each word;
SpecAugment on the features; projector, two bidirectional LSTMs, linear; CTC; greedy decoding; word error rate over the
corpus. With a language model the test set is decoded a second time, by beam search; dev is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from downstreams.base import FrameTask, Prediction, Scores, Setup, TrainingSettings
from downstreams.batching import buckets
from downstreams.batching.sampling import BatchSource
from downstreams.batching.targets import Targets
from downstreams.metrics import error_rate
from downstreams.metrics.scores import Metric, Score
from downstreams.task_types import ctc, label_forms
from downstreams.task_types.official_corpus import OfficialCorpus
from downstreams.text.beam_search import BeamSearch, LanguageModelSettings
from downstreams.text.vocabulary import LETTER_SPECIALS, LETTERS, Letters, Pieces
from superb_eval.data.manifest import Corpus, Manifest, Utterance
from superb_eval.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

WER_LM = Metric("wer_lm", "WER with LM", higher_is_better=False)
"""An additional metric where the recipe names a language model."""


class SpeechHead(ctc.RecogniserSettings, LanguageModelSettings):
    """The recurrent head's settings, and those of the beam search."""


class Hypothesis(NamedTuple):
    """The words of greedy decoding, and log probabilities [frames, outputs] where the recipe has a beam search."""

    words: str
    log_probabilities: Tensor | None


class SpeechRecognition(FrameTask):
    """The words are the manifest's column `text`; case is ignored.

    The outputs are the protocol's 32 where their letters suffice for the training rows, else the letters of the
    training rows (the most frequent first), or SentencePiece subwords if the recipe sets them. Other letters in dev
    or test have no output. A row's answer is that of greedy decoding; with a language model, a tab and that of the
    beam search follow.
    """

    name = "asr"
    title = "speech recognition"
    columns = ("text",)
    metrics = (Metric("wer", "WER", higher_is_better=False), Metric("cer", "CER", higher_is_better=False))
    whole = True
    Head = SpeechHead
    LabelForm = label_forms.Spelling
    hub_task = "automatic-speech-recognition"
    paper_position = 1
    official_corpus = OfficialCorpus(
        (28_539, 2_703, 2_620),
        12.0,
        {"characters": [*LETTER_SPECIALS, *LETTERS]},
        lambda frames: [5, 6] * (frames // 8),
    )

    @classmethod
    def learn(cls, corpus: Corpus, head: Any) -> dict[str, Any]:
        """Return the names of the outputs, or the SentencePiece model; see `TrainedTask.learn`."""
        texts = [u.labels["text"] for u in corpus.splits["train"]]
        if head.vocabulary == "characters":
            return {"characters": Letters.learn(texts)}
        return {"sentencepiece": Pieces.learn(texts, head.vocabulary.sentencepiece)}

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.stack = ctc.stacking(setup.head, setup.stride)
        letters = setup.labels.get("characters")
        self.vocabulary = Letters(letters) if letters else Pieces(setup.labels["sentencepiece"])
        self.search: BeamSearch | None = None
        if setup.head.lm is not None or setup.head.lexicon is not None:
            if not letters:
                raise UserError("head.lm needs letters: leave out head.vocabulary, or head.lm and head.lexicon.")
            self.search = BeamSearch(setup.head, letters)

    def head(self, dim: int) -> nn.Module:
        """See `TrainedTask.head`."""
        from downstreams.nets.recurrent import Recogniser

        return Recogniser(dim, len(self.vocabulary), self.setup.head, self.stack)

    def target(self, utterance: Utterance) -> list[int]:
        """Return the outputs that spell the utterance's words."""
        return self.vocabulary.encode(utterance.labels["text"])

    def remarks(self, manifest: Manifest, frames: Sequence[int]) -> list[str]:
        """Return a sentence on rows longer than their frames, and on those with letters that have no output."""
        stacked = [-(-count // self.stack) for count in frames]
        return ctc.remarks(manifest, stacked, [self.target(u) for u in manifest], self.vocabulary.unknown)

    def loss(self, output: Tensor, lengths: Tensor, targets: Targets) -> Tensor:
        """Return the CTC loss of logits [batch, stacked frames, outputs]."""
        return ctc.loss(output, ctc.stacked_lengths(lengths, self.stack), targets, self.vocabulary.blank)

    def decode(self, output: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """Return the words of each utterance by greedy decoding, and what a beam search needs."""
        lengths = ctc.stacked_lengths(lengths, self.stack)
        paths = ctc.greedy(output, lengths, self.vocabulary.blank)
        log_probs: list[Tensor | None] = [None] * len(paths)
        if self.search is not None:
            rows = output.float().log_softmax(dim=-1).cpu()
            log_probs = [row[:n] for row, n in zip(rows, lengths.tolist(), strict=True)]
        return [Hypothesis(self.vocabulary.decode(path), log_probs[i]) for i, path in enumerate(paths)]

    def scores(self, decoded: Sequence[Any], outputs: Sequence[Tensor], lengths: Sequence[int]) -> list[Scores]:
        """Return the mean log probability of each utterance's outputs, in greedy decoding."""
        del decoded
        stacked = [-(-n // self.stack) for n in lengths]
        return [ctc.mean_log_probability(logits, n) for logits, n in zip(outputs, stacked, strict=True)]

    def truth(self, utterance: Utterance) -> str:
        """Return the words of the manifest, in upper case."""
        return " ".join(utterance.labels["text"].upper().split())

    def rows(self, manifest: Manifest, decoded: Sequence[Hypothesis]) -> list[Prediction]:
        """Return the predictions; beam search runs on test alone, since greedy decoding selects on dev."""
        answers = [hypothesis.words for hypothesis in decoded]
        if self.search is not None and manifest.split == "test":
            answers = [f"{hypothesis.words}\t{_beam_words(self.search, hypothesis)}" for hypothesis in decoded]
        return super().rows(manifest, answers)

    def show(self, decoded: Sequence[Hypothesis]) -> list[str]:
        """Return the words of each utterance: the beam search's where there is one."""
        if self.search is None:
            return [hypothesis.words for hypothesis in decoded]
        return [_beam_words(self.search, hypothesis) for hypothesis in decoded]

    def sampler(self, train: Manifest, seconds: Sequence[float], settings: TrainingSettings, seed: int) -> BatchSource:
        """Return groups of similar duration, split into halves."""
        del train
        return buckets.Buckets(buckets.halved_groups(seconds, settings.batch_size), seed)

    @classmethod
    def utterances_per_batch(cls, batch_size: int) -> int:
        """Return half the batch size: `sampler` splits each group into halves."""
        return max(1, batch_size // 2)

    def score(self, rows: Sequence[Prediction]) -> list[Score]:
        """Return the word and character error rates, and the word error rate of beam search where there was one."""
        truths, answers = [row.truth for row in rows], [row.answer.split("\t") for row in rows]
        words, characters = self.metrics
        scores = [
            error_rate.error_rate(words, error_rate.word_edits(truths, [a[0] for a in answers])),
            error_rate.error_rate(characters, error_rate.character_edits(truths, [a[0] for a in answers])),
        ]
        if len(answers[0]) > 1:
            scores.append(error_rate.error_rate(WER_LM, error_rate.word_edits(truths, [a[1] for a in answers])))
        return scores

    def chance(self, rows: Sequence[Prediction]) -> float:
        """Return the error rate of always answering with the most frequent word, at the best number of repeats."""
        return error_rate.constant_word_error_rate([row.truth for row in rows])


def _beam_words(search: BeamSearch, hypothesis: Hypothesis) -> str:
    """Return the words of the beam search; those of greedy decoding where the lexicon allows none (s3prl `asr`)."""
    words = None if hypothesis.log_probabilities is None else search.words(hypothesis.log_probabilities)
    return hypothesis.words if words is None else words
