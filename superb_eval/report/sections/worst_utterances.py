"""The utterances that went worst, and what they sound like where the audio is at hand."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from downstreams.base import Prediction, Scored
from superb_eval.corpora import embedded
from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError
from superb_eval.recipe import Recipe
from superb_eval.report.charts import confusion, speaker_turns
from superb_eval.results.record import RunRecord
from superb_eval.results.recorded_command import asked
from superb_eval.runs import config

WORST = 6
"""Utterances shown of each task."""

SECONDS = 12.0
"""Of a clip that are embedded at most."""

TRIALS = ("asv", "qbe")
"""Tasks whose rows ask about two clips, and answer with a score."""


TRUTHS = {
    ("asv", "1"): "one speaker",
    ("asv", "0"): "two speakers",
    ("qbe", "1"): "is said",
    ("qbe", "0"): "is not said",
}
"""What the truth of a trial means."""


@dataclass(frozen=True)
class Answer:
    """What an upstream's head answered, and how wrong that is; 0: not at all. `drawing` shows what is no text."""

    name: str
    text: str
    wrong: float
    drawing: Markup | None = None


@dataclass(frozen=True)
class Worst:
    """An utterance, or a trial of two. `sounds` are data URIs."""

    id: str
    truth: str
    answers: tuple[Answer, ...]
    sounds: tuple[str, ...] = ()
    drawing: Markup | None = None


def worst(task: Scored, found: Mapping[str, Sequence[Prediction]]) -> list[Worst]:
    """Return the rows that went worst over all upstreams that answered the same ones, the worst first."""
    first = next(iter(found.values()))
    asked = [(row.id, row.truth) for row in first]
    same = {name: rows for name, rows in found.items() if [(row.id, row.truth) for row in rows] == asked}
    wrong = {name: _wrong(task, rows) for name, rows in same.items()}
    mean = np.mean(list(wrong.values()), axis=0)
    places = [k for k in np.argsort(-mean, kind="stable").tolist() if mean[k] > 0][:WORST]
    return [
        _told(task.name, asked[k], {name: (rows[k].answer, float(wrong[name][k])) for name, rows in same.items()})
        for k in places
    ]


def _told(task: str, row: tuple[str, str], answers: Mapping[str, tuple[str, float]]) -> Worst:
    row_id, truth = row
    texts = [truth, *(text for text, _ in answers.values())]
    drawings: Sequence[Markup | None] = (speaker_turns.draw(texts) if task == "sd" else None) or [None] * len(texts)
    told = [
        Answer(name, text, wrong, drawing)
        for (name, (text, wrong)), drawing in zip(answers.items(), drawings[1:], strict=True)
    ]
    return Worst(row_id, TRUTHS.get((task, truth), truth), tuple(told), drawing=drawings[0])


def _wrong(task: Scored, rows: Sequence[Prediction]) -> NDArray[np.float64]:
    """How wrong each row is: its own error in the first metric; for trials, how far it lies beyond the threshold."""
    if task.name in TRIALS:
        return _beyond(rows)
    score = task.score(rows)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.asarray(score.statistic(np.arange(len(rows))[:, None]), dtype=np.float64)
    worse = 100 - values if score.metric.higher_is_better else values
    # A mean over folds is undefined on one row; there an answer is right or wrong.
    plain = np.array([100.0 * (row.truth != row.answer) for row in rows])
    return np.where(np.isfinite(worse), worse, plain)


def _beyond(rows: Sequence[Prediction]) -> NDArray[np.float64]:
    """How far each score lies on the wrong side of the threshold of equal errors, in standard deviations."""
    scores = np.array([_score(row.answer) for row in rows])
    target = np.array([row.truth == "1" for row in rows])
    known = np.isfinite(scores)
    if not (known & target).any() or not (known & ~target).any():
        return np.zeros(len(rows))
    curve = confusion.trade_off(target[known], scores[known])
    threshold = curve.thresholds[curve.equal()]
    spread = scores[known].std() or 1.0
    beyond = np.where(target, threshold - scores, scores - threshold) / spread
    return np.where(known, np.maximum(beyond, 0.0), 0.0)


def _score(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


@dataclass
class Sounds:
    """Embeds clips within a budget of bytes, each once. `silent` says why there are none, a sentence each."""

    budget: float
    data: Path | None = None
    silent: list[str] = field(default_factory=list)
    left_out: int = 0
    _clips: dict[tuple[str, str], dict[str, Clip]] = field(default_factory=dict)
    _made: dict[Clip, str] = field(default_factory=dict)

    def of(self, record: RunRecord, row_id: str) -> tuple[str, ...]:
        """Return the clips of a row of a run as data URIs; those that can't be had are left out, and told of."""
        clips = self._corpus(record)
        names = row_id.split(" ") if record.task in TRIALS else [row_id]
        found = [self._embedded(clips[name]) for name in names if name in clips]
        return tuple(uri for uri in found if uri)

    def _corpus(self, record: RunRecord) -> dict[str, Clip]:
        """Every clip of a run's corpus by the id of its row; empty where the corpus is not there any more."""
        key = (record.task, record.corpus.digest)
        if key not in self._clips:
            try:
                self._clips[key] = _clips(record, self.data) if self.budget > 0 else {}
            except (UserError, ValueError) as error:
                first = str(error).splitlines()[0]
                self.silent.append(f"{record.task.upper()}: the audio is not at hand ({first})")
                self._clips[key] = {}
        return self._clips[key]

    def _embedded(self, clip: Clip) -> str | None:
        if clip not in self._made:
            try:
                uri = _data_uri(clip)
            except UserError as error:
                self.silent.append(str(error))
                return None
            if len(uri) > self.budget:
                self.left_out += 1
                return None
            self.budget -= len(uri)
            self._made[clip] = uri
        return self._made[clip]


def _clips(record: RunRecord, data: Path | None) -> dict[str, Clip]:
    chosen = Recipe.model_validate(record.recipe)
    corpus = config.read_corpus(chosen, data or asked(record).data or embedded.place(record.profile))
    rows = [u for name in ("train", "dev", "test") for u in corpus.splits.get(name, ())]
    # The test split last: its clips win where an id stands in several.
    return {u.labels.get("recording", u.id) if record.task == "sd" else u.id: u.clip for u in rows}


def _data_uri(clip: Clip) -> str:
    """The beginning of a clip, as the upstream heard it, as a data URI: MP3, which every browser plays.

    Raises:
        UserError: see `audio.read`.
    """
    import soundfile

    samples = audio.read(clip)[: round(SECONDS * audio.SAMPLE_RATE)]
    kind, mime = ("MP3", "audio/mpeg") if "MP3" in soundfile.available_formats() else ("FLAC", "audio/flac")
    content = io.BytesIO()
    soundfile.write(content, samples, audio.SAMPLE_RATE, format=kind)
    return f"data:{mime};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
