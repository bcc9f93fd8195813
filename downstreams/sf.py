"""SF, slot filling: the words of an utterance, and which of them fill which slot.

Protocol: SUPERB (arXiv 2105.01051, section 3.1) as s3prl's `downstream/ctc` runs it with `snips.yaml`. Characters with
marks around the values of slots (`B-city PARIS E-city`, each mark one output); the head of ASR; CTC; greedy decoding;
F1 of slot types and character error rate of slot values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from downstreams.base import FrameTask, Prediction, Scores, Setup, TrainingSettings
from downstreams.batching import buckets
from downstreams.batching.sampling import BatchSource
from downstreams.batching.targets import Targets
from downstreams.metrics import error_rate
from downstreams.metrics.scores import Metric, Score, ratio
from downstreams.task_types import ctc, label_forms
from downstreams.task_types.official_corpus import OfficialCorpus, numbered
from downstreams.text import slots
from downstreams.text.vocabulary import CHARACTERS, EOS, PAD, SPECIALS, UNK, Characters, Pieces
from superb_eval.data.manifest import Corpus, Manifest, Utterance, bad_rows_message
from superb_eval.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

PUNCTUATION = "?!.,;-"
"""Words that are part of this string get no outputs."""


class MarkedText:
    """Spells words and marks slots; outputs of marks come after those of the speller, `B-` then `E-` of each slot."""

    def __init__(self, speller: Characters | Pieces, names: Sequence[str]) -> None:
        self.speller = speller
        self.marks = [mark + name for name in names for mark in ("B-", "E-")]
        self._index = {mark: len(speller) + i for i, mark in enumerate(self.marks)}

    def __len__(self) -> int:
        return len(self.speller) + len(self.marks)

    def encode(self, words: Sequence[str], tags: Sequence[str]) -> list[int]:
        """Return the outputs for words and their tags (`O`, `B-slot`, `I-slot`).

        Punctuation is skipped, so that a target lacks `<eos>` where the last word is one (as s3prl `ctc/text.py`).
        """
        target: list[int] = []
        for i, (word, tag) in enumerate(zip(words, tags, strict=True)):
            if word in PUNCTUATION:
                continue
            if tag.startswith("B-"):
                target.append(self._index[tag])
            target += self.speller.word("AND" if word == "&" else word.upper())
            last = i + 1 == len(words)
            if tag != "O" and (last or not tags[i + 1].startswith("I-")):
                target.append(self._index["E-" + tag[2:]])
            target += (EOS,) if last else self.speller.between
        return target

    def decode(self, path: Sequence[int]) -> str:
        """Return text with marks, one space between its parts."""
        shown = (self._shown(output) for output in path if output not in (PAD, EOS))
        return " ".join("".join(shown).split())

    def _shown(self, output: int) -> str:
        if output < len(self.speller):
            return self.speller.shown(output)
        mark = self.marks[output - len(self.speller)]
        # With characters, the space before a value's mark is an output of its own; with pieces it isn't.
        before = " " if mark.startswith("E-") or not self.speller.between else ""
        return f"{before}{mark} " if mark.startswith("B-") else f"{before}{mark}"


class SlotFilling(FrameTask):
    """Columns: `text_canonical`, the words as spoken; `iob_canonical`, a tag for each (`O`, `B-slot`, `I-slot`).
    `text` and `iob` are read as these where they are missing.

    Case is ignored. The outputs are `<pad>`, `<eos>`, `<unk>`, the protocol's 28 characters (or SentencePiece subwords
    if the recipe sets them) and two marks for each slot of the training rows, the most frequent slot first.
    """

    name = "sf"
    title = "slot filling"
    columns = ("text_canonical", "iob_canonical")
    column_aliases: ClassVar[Mapping[str, str]] = {"text_canonical": "text", "iob_canonical": "iob"}
    metrics = (Metric("f1", "F1", higher_is_better=True), Metric("cer", "CER", higher_is_better=False))
    whole = True
    Head = ctc.RecogniserSettings
    LabelForm = label_forms.SpellingWithSlots
    hub_task = "automatic-speech-recognition"
    paper_position = 8
    official_corpus = OfficialCorpus(
        (104_672, 2_800, 2_800),
        2.9,
        {"characters": list(CHARACTERS), "slots": numbered(39)},
        lambda frames: [5, 6] * (frames // 8),
    )

    @classmethod
    def label_set(cls, utterance: Utterance, head: Any) -> frozenset[str]:
        """Return the utterance's slots."""
        del head
        return frozenset(tag[2:] for tag in utterance.labels["iob_canonical"].split() if tag.startswith("B-"))

    @classmethod
    def learn(cls, corpus: Corpus, head: Any) -> dict[str, Any]:
        """Return the speller's outputs or SentencePiece model, and the slots; see `TrainedTask.learn`.

        Raises:
            UserError: tags don't fit words, or name slots that the training rows lack; each row is named.
        """
        for split in corpus.splits.values():
            _refuse(split, list(_mismatched_tags(split)))
        train = corpus.splits["train"]
        counts = Counter(tag[2:] for u in train for tag in u.labels["iob_canonical"].split() if tag.startswith("B-"))
        if not counts:
            raise UserError(f"{train.source}: no row has a slot. Mark the values in iob_canonical as B-slot I-slot.")
        names = sorted(counts, key=lambda name: (-counts[name], name))
        for split in corpus.splits.values():
            _refuse(split, list(_unseen_slots(split, names)))
        return {**_learn_speller(train, head), "slots": names}

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.stack = ctc.stacking(setup.head, setup.stride)
        characters, pieces = setup.labels.get("characters"), setup.labels.get("sentencepiece")
        self.vocabulary = MarkedText(Characters(characters) if characters else Pieces(pieces), setup.labels["slots"])

    def head(self, dim: int) -> nn.Module:
        """See `TrainedTask.head`."""
        from downstreams.nets.recurrent import Recogniser

        return Recogniser(dim, len(self.vocabulary), self.setup.head, self.stack)

    def target(self, utterance: Utterance) -> list[int]:
        """Return the outputs that spell the utterance's words and mark their slots."""
        return self.vocabulary.encode(*(utterance.labels[column].split() for column in self.columns))

    def remarks(self, manifest: Manifest, frames: Sequence[int]) -> list[str]:
        """Return a sentence on rows longer than their frames, and on those with characters that have no output."""
        stacked = [-(-count // self.stack) for count in frames]
        return ctc.remarks(manifest, stacked, [self.target(u) for u in manifest], UNK)

    def loss(self, output: Tensor, lengths: Tensor, targets: Targets) -> Tensor:
        """Return the CTC loss of logits [batch, stacked frames, outputs]."""
        return ctc.loss(output, ctc.stacked_lengths(lengths, self.stack), targets, PAD)

    def decode(self, output: Tensor, lengths: Tensor) -> list[str]:
        """Return the words of each utterance with marks around the values of slots."""
        paths = ctc.greedy(output, ctc.stacked_lengths(lengths, self.stack), PAD)
        return [self.vocabulary.decode(path) for path in paths]

    def scores(self, decoded: Sequence[Any], outputs: Sequence[Tensor], lengths: Sequence[int]) -> list[Scores]:
        """Return the mean log probability of each utterance's outputs, in greedy decoding."""
        del decoded
        stacked = [-(-n // self.stack) for n in lengths]
        return [ctc.mean_log_probability(logits, n) for logits, n in zip(outputs, stacked, strict=True)]

    def truth(self, utterance: Utterance) -> str:
        """Return the marked words of the manifest, with unknown characters as `<unk>`."""
        return self.vocabulary.decode(self.target(utterance))

    def sampler(self, train: Manifest, seconds: Sequence[float], settings: TrainingSettings, seed: int) -> BatchSource:
        """Return overlapping buckets of utterances with labels of similar length."""
        labels = [len(self.target(u)) for u in train]
        return buckets.Buckets(buckets.overlapping_buckets(labels, seconds, settings.batch_size), seed)

    def score(self, rows: Sequence[Prediction]) -> list[Score]:
        """Return the mean over utterances of the F1 of slot types, and the character error rate of slot values."""
        truths, answers = [row.truth for row in rows], [row.answer for row in rows]
        f1 = slots.type_f1(truths, answers)
        values = slots.value_edits(truths, answers)
        return [ratio(self.metrics[0], f1, np.ones_like(f1)), error_rate.error_rate(self.metrics[1], values)]

    def chance(self, rows: Sequence[Prediction]) -> float:
        """Return the F1 of always answering with the most frequent slot types, at the best number."""
        truths = [set(slots.extract_slots(row.truth)) for row in rows]
        common = [name for name, _ in Counter(name for truth in truths for name in truth).most_common()]
        answers = [set(common[:n]) for n in range(len(common) + 1)]
        return max(100.0 * sum(slots.set_f1(truth, answer) for truth in truths) / len(truths) for answer in answers)


def _learn_speller(train: Manifest, head: Any) -> dict[str, Any]:
    if head.vocabulary == "characters":
        return {"characters": [*SPECIALS, *CHARACTERS]}
    return {"sentencepiece": Pieces.learn([u.labels["text_canonical"] for u in train], head.vocabulary.sentencepiece)}


def _refuse(split: Manifest, problems: Sequence[str]) -> None:
    if problems:
        raise UserError(bad_rows_message(split.source, problems))


def _mismatched_tags(split: Manifest) -> Iterator[str]:
    """A sentence for each row whose tags don't fit its words or one another."""
    for u in split:
        words, tags = u.labels["text_canonical"].split(), u.labels["iob_canonical"].split()
        if len(words) != len(tags):
            yield f"{split.row_name(u)}: text_canonical has {len(words)} words, iob_canonical {len(tags)} tags"
        for i, tag in enumerate(tags):
            if tag != "O" and not (tag.startswith(("B-", "I-")) and tag[2:]):
                yield f"{split.row_name(u)}: tag '{tag}' is not O, B-slot or I-slot"
            elif tag.startswith("I-") and (i == 0 or tags[i - 1][2:] != tag[2:]):
                yield f"{split.row_name(u)}: tag '{tag}' continues no {tag[2:]}; a value begins with 'B-{tag[2:]}'"


def _unseen_slots(split: Manifest, names: Sequence[str]) -> Iterator[str]:
    """A sentence for each tag whose slot the training rows lack."""
    known = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    for u in split:
        for tag in dict.fromkeys(u.labels["iob_canonical"].split()):
            if tag.startswith("B-") and tag[2:] not in names:
                yield f"{split.row_name(u)}: slot '{tag[2:]}' is never seen in train (known: {known})"
