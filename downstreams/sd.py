"""SD, speaker diarisation: which of two speakers is active when, overlaps included.

Protocol: SUPERB (arXiv 2105.01051, section 3.1) as s3prl's `downstream/diarization` runs it on Libri2Mix. One LSTM that
runs forward only, a logit per speaker and frame; labels at the upstream's stride; a permutation-free loss; the
checkpoint of the best frame accuracy on dev; diarisation error rate without collar. Probabilities become turns by a
threshold and a median filter: the published figure is that of the best of ten such settings on the test set, which the
record has as historical; the strict one takes the setting that is best on dev.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, product
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from downstreams.base import FrameTask, HeadSettings, Prediction, Scores
from downstreams.batching.targets import Targets
from downstreams.metrics import diarization
from downstreams.metrics.diarization import EXTRA_FRAMES
from downstreams.metrics.scores import Metric, Score, ratio
from downstreams.task_types import label_forms
from downstreams.task_types.official_corpus import OfficialCorpus
from superb_eval.data import limits
from superb_eval.data.bounds import Seconds, Width, at_most
from superb_eval.data.manifest import Corpus, Manifest, Turn, Utterance
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
MEDIANS = (1, 11)
"""Frames; 1 is no filter. Each threshold is tried with each (s3prl `downstream/diarization/score.sh`)."""


Speakers = Annotated[int, Field(ge=1), at_most(6, "the loss compares every order of them, of six 720")]


class DiarizationHead(HeadSettings):
    """`hidden`: width of the LSTM; `speakers`: how many a recording has at most."""

    hidden: Width = 512
    speakers: Speakers = 2


class DiarizationCorpus(CorpusSettings):
    """Which recordings are read, and how they are cut."""

    speakers: Speakers = Field(2, description="manifests: recordings with another number of speakers are left out")
    chunk_seconds: Seconds = Field(
        40.0,
        ge=0.05,
        description="recordings are processed in chunks of this length, in s; the protocol: 2 000 frames",
    )
    merge_turns: bool = Field(
        False, description="overlapping turns of one speaker become one, and are counted; false: they are refused"
    )


class SpeakerDiarization(FrameTask):
    """Utterances are chunks of recordings; a recording's chunks are in sequence, and each has all of its turns."""

    version = 2
    name = "sd"
    title = "speaker diarisation"
    columns = ("recording", "turns")
    metrics = (Metric("der", "DER", higher_is_better=False),)
    criterion = Metric("frame_acc", "frame ACC", higher_is_better=True)
    whole = True
    Head = DiarizationHead
    LabelForm = label_forms.SpeakerCount
    CorpusSchema = DiarizationCorpus
    unit = "recordings"
    paper_position = 6
    official_corpus = OfficialCorpus((13_900, 3_000, 3_000), 14.0, 2, lambda frames: torch.ones(frames, 2))
    threshold, median = 0.5, 11

    @classmethod
    def learn(cls, corpus: Corpus, head: Any) -> int:
        """Return the number of speakers that have an output; see `TrainedTask.learn`."""
        for split in corpus.splits.values():
            crowded = sorted({u.labels["recording"] for u in split if _speaker_count(u) > head.speakers})
            if crowded:
                raise UserError(
                    f"{split.source}: {len(crowded)} recording(s) have more than {head.speakers} speakers: "
                    f"{', '.join(crowded[:12])}. Leave them out, or give -o head.speakers=N."
                )
        return int(head.speakers)

    @classmethod
    def limited(cls, corpus: Corpus, count: int, head: Any) -> Corpus:
        """Return whole recordings: one that is cut would lack answers to its turns."""
        del head
        return replace(corpus, splits={name: limits.by_recording(s, count) for name, s in corpus.splits.items()})

    def head(self, dim: int) -> nn.Module:
        """See `TrainedTask.head`."""
        from downstreams.nets.heads import SpeakerActivity

        return SpeakerActivity(dim, self.setup.head.hidden, self.labels)

    def target(self, utterance: Utterance) -> Tensor:
        """Return which speakers are active in each label frame of a chunk, [frames, speakers]."""
        turns, stride = diarization.turns_from_json(utterance.labels["turns"]), self.setup.stride
        return torch.from_numpy(diarization.speaker_activity(turns, _span(utterance, stride), stride, self.labels))

    def loss(self, output: Tensor, lengths: Tensor, targets: Targets) -> Tensor:
        """Return the permutation-free binary cross-entropy of logits [batch, frames + EXTRA_FRAMES, speakers]."""
        loss, _ = diarization.pit_loss(diarization.align_frames(output, lengths, targets.lengths), targets)
        return loss

    def weight(self, targets: Targets) -> float:
        """Return how many frames the chunks have: the loss is a mean over frames."""
        return int(targets.lengths.sum())

    def decode(self, output: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return each chunk's logits [its frames + EXTRA_FRAMES, speakers]."""
        return [row[: n + EXTRA_FRAMES] for row, n in zip(output.float().cpu(), lengths.tolist(), strict=True)]

    def select(self, dev: Manifest, decoded: Sequence[Tensor]) -> float:
        """Return the frame accuracy, its mean over chunks."""
        pairs = [(self._align(logits, u), self.target(u)) for u, logits in zip(dev, decoded, strict=True)]
        return float(np.mean([diarization.frame_accuracy(logits, label) for logits, label in pairs]))

    def rows(self, manifest: Manifest, decoded: Sequence[Tensor]) -> list[Prediction]:
        """Return a row for each recording: reference and predicted turns, as JSON [[start, end, speaker], ...]."""
        return self._rows(manifest, decoded, self.threshold, self.median)

    def tune(self, dev: Manifest, decoded: Sequence[Tensor]) -> dict[str, Any]:
        """Tune threshold and median filter by the error rate on dev; the first of equals."""
        ders = {
            choice: self.score(self._rows(dev, decoded, *choice))[0].value for choice in product(THRESHOLDS, MEDIANS)
        }
        self.threshold, self.median = min(ders, key=lambda choice: ders[choice])
        return {"threshold": self.threshold, "median": self.median}

    def adopt(self, tuned: dict[str, Any]) -> None:
        """Set the threshold and the median filter.

        Raises:
            UserError: they are none that `tune` tries.
        """
        threshold, median = tuned.get("threshold"), tuned.get("median")
        if threshold not in THRESHOLDS or median not in MEDIANS:
            raise UserError(
                f"training.tuned: threshold {threshold!r} and median {median!r} are none of {THRESHOLDS} and {MEDIANS}."
            )
        self.threshold, self.median = threshold, median

    def historical(self, test: Manifest, decoded: Sequence[Tensor]) -> list[Prediction]:
        """Return the predictions of the setting that is best on test."""
        tried = [self._rows(test, decoded, *choice) for choice in product(THRESHOLDS, MEDIANS)]
        return min(tried, key=lambda rows: self.score(rows)[0].value)

    def score(self, rows: Sequence[Prediction]) -> list[Score]:
        """Return the diarisation error rate: error time of all recordings by the time of speech."""
        pairs = [(diarization.turns_from_json(row.truth), diarization.turns_from_json(row.answer)) for row in rows]
        errors, speech = np.array([diarization.error_seconds(*pair) for pair in pairs]).T
        return [ratio(self.metrics[0], errors, speech)]

    def show(self, decoded: Sequence[Tensor]) -> list[str]:
        """Return each file's turns, in seconds."""
        return [", ".join(map(_turn_text, self._turns(probabilities))) for probabilities in _probabilities(decoded)]

    def scores(self, decoded: Sequence[Tensor], outputs: Sequence[Tensor], lengths: Sequence[int]) -> list[Scores]:
        """Return the mean probability of each turn's speaker over its frames."""
        del outputs, lengths
        stride = self.setup.stride
        return [
            {
                _turn_text(turn): round(diarization.mean_probability(probabilities, turn, stride), 4)
                for turn in self._turns(probabilities)
            }
            for probabilities in _probabilities(decoded)
        ]

    def _turns(self, probabilities: NDArray[np.float32]) -> list[Turn]:
        """Return a file's turns from probabilities [frames, speakers]."""
        return diarization.decode_turns(probabilities, self.threshold, self.median, self.setup.stride)

    def chance(self, rows: Sequence[Prediction]) -> float:
        """Return what the best constant answer scores: some number of speakers is active all the time, or none is."""
        return min(self.score([_constant(row, count) for row in rows])[0].value for count in range(self.labels + 1))

    def _rows(self, manifest: Manifest, decoded: Sequence[Tensor], threshold: float, median: int) -> list[Prediction]:
        return [
            Prediction(
                chunk.labels["recording"],
                chunk.labels["turns"],
                diarization.turns_to_json(
                    diarization.decode_turns(probabilities, threshold, median, self.setup.stride)
                ),
            )
            for chunk, probabilities in self._recordings(manifest, decoded)
        ]

    def _recordings(
        self, manifest: Manifest, decoded: Sequence[Tensor]
    ) -> Iterator[tuple[Utterance, NDArray[np.float32]]]:
        """Yield each recording's first chunk, and the probabilities [frames, speakers] of all of its chunks."""
        chunks = zip(manifest, decoded, strict=True)
        for _, group in groupby(chunks, key=lambda chunk: chunk[0].labels["recording"]):
            parts = list(group)
            yield parts[0][0], torch.cat([self._align(logits, u) for u, logits in parts]).sigmoid().numpy()

    def _align(self, logits: Tensor, utterance: Utterance) -> Tensor:
        """The logits of a chunk's label frames."""
        first, last = _span(utterance, self.setup.stride)
        return diarization.align_frames(
            logits[None], torch.tensor([len(logits) - EXTRA_FRAMES]), torch.tensor([last - first])
        )[0]


def _span(utterance: Utterance, stride: int) -> tuple[int, int]:
    """A chunk's label frames; its clip has its start and end."""
    if utterance.clip.end is None:
        raise UserError(f"{utterance.id}: the chunk has no end. Read the corpus with superb_eval.corpora.load_corpus.")
    return diarization.label_frames(utterance.clip.start, utterance.clip.end, stride)


def _probabilities(decoded: Sequence[Tensor]) -> list[NDArray[np.float32]]:
    """Return the probabilities of each file's frames, [frames, speakers]."""
    return [logits[: len(logits) - EXTRA_FRAMES].sigmoid().numpy() for logits in decoded]


def _turn_text(turn: Turn) -> str:
    return f"{turn.start:.2f}-{turn.end:.2f} speaker {turn.speaker}"


def _speaker_count(utterance: Utterance) -> int:
    return len({turn.speaker for turn in diarization.turns_from_json(utterance.labels["turns"])})


def _constant(row: Prediction, count: int) -> Prediction:
    turns = diarization.turns_from_json(row.truth)
    begin, end = min((t.start for t in turns), default=0.0), max((t.end for t in turns), default=0.0)
    return row._replace(answer=diarization.turns_to_json([Turn(begin, end, str(k)) for k in range(count)]))
