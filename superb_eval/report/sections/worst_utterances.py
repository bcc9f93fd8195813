"""The utterances with the most errors, with their audio where it is available."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from downstreams import registry
from downstreams.base import BaseTask, Prediction
from superb_eval.corpora import embedded, load_corpus
from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.data.links import CorpusFolder
from superb_eval.data.manifest import Corpus
from superb_eval.errors import UserError
from superb_eval.report.charts import det, speaker_turns
from superb_eval.report.sections.marked_errors import mark_errors
from superb_eval.results.record import RunRecord
from superb_eval.results.recorded_command import parse_command
from superb_eval.results.recorded_recipe import recipe_of

WORST = 6
"""Utterances shown of each task."""

SECONDS = 12.0
"""Longest part of a clip that is embedded, from its beginning."""


@dataclass(frozen=True)
class Answer:
    """The answer of an upstream's head; `error` 0: right.

    `drawing` replaces the text of speaker turns; `marked` is a transcript's text with its errors marked.
    """

    name: str
    text: str
    error: float
    drawing: Markup | None = None
    marked: Markup | None = None


@dataclass(frozen=True)
class WorstUtterance:
    """An utterance, or a trial of two. `audio` are data URIs; `no_audio` is why some are left out."""

    id: str
    truth: str
    answers: tuple[Answer, ...]
    audio: tuple[str, ...] = ()
    no_audio: str = ""
    drawing: Markup | None = None


def worst(task: BaseTask, predictions: Mapping[str, Sequence[Prediction]]) -> list[WorstUtterance]:
    """Return the rows with the greatest mean error over all upstreams with the same rows, the worst first."""
    first = next(iter(predictions.values()))
    units = [(row.id, row.truth) for row in first]
    same = {name: rows for name, rows in predictions.items() if [(row.id, row.truth) for row in rows] == units}
    errors = {name: _errors(task, rows) for name, rows in same.items()}
    mean = np.mean(list(errors.values()), axis=0)
    ranked = [k for k in np.argsort(-mean, kind="stable").tolist() if mean[k] > 0][:WORST]
    return [
        _utterance(task, units[k], {name: (rows[k].answer, float(errors[name][k])) for name, rows in same.items()})
        for k in ranked
    ]


def _utterance(task: BaseTask, row: tuple[str, str], answers: Mapping[str, tuple[str, float]]) -> WorstUtterance:
    row_id, truth = row
    texts = [truth, *(text for text, _ in answers.values())]
    drawings: Sequence[Markup | None] = (speaker_turns.draw(texts) if task.name == "sd" else None) or [None] * len(
        texts
    )
    shown = [
        Answer(name, text, error, drawing, mark_errors(task.name, truth, text))
        for (name, (text, error)), drawing in zip(answers.items(), drawings[1:], strict=True)
    ]
    return WorstUtterance(row_id, task.truth_names.get(truth, truth), tuple(shown), drawing=drawings[0])


def _errors(task: BaseTask, rows: Sequence[Prediction]) -> NDArray[np.float64]:
    """The error of each row [rows]: in the first metric; of trials, the distance beyond the threshold."""
    if task.trials:
        return _distances_beyond_threshold(rows)
    score = task.score(rows)[0]
    right_or_wrong = np.array([100.0 * (row.truth != row.answer) for row in rows])
    if score.by_unit is None:
        return right_or_wrong
    errors = 100 - score.by_unit if score.metric.higher_is_better else score.by_unit
    # A ratio is undefined on a row without a reference; there the error is 0 or 100 %.
    return np.where(np.isfinite(errors), errors, right_or_wrong)


def _distances_beyond_threshold(rows: Sequence[Prediction]) -> NDArray[np.float64]:
    """How far each score is on the wrong side of the equal-error threshold, in standard deviations [rows]."""
    scores = np.array([_score(row.answer) for row in rows])
    target = np.array([row.truth == "1" for row in rows])
    finite = np.isfinite(scores)
    if not (finite & target).any() or not (finite & ~target).any():
        return np.zeros(len(rows))
    curve = det.trade_off(target[finite], scores[finite])
    threshold = curve.thresholds[curve.equal_error_index()]
    spread = scores[finite].std() or 1.0
    beyond = np.where(target, threshold - scores, scores - threshold) / spread
    return np.where(finite, np.maximum(beyond, 0.0), 0.0)


def _score(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


@dataclass
class AudioClips:
    """Embeds clips within a budget of bytes, each once. `problems` lists why audio is missing, a sentence each.

    Audio that lies outside its corpus's folder is never embedded: a report is passed on, and a corpus may link to any
    file.
    """

    budget: float
    data: Path | None = None
    problems: list[str] = field(default_factory=list)
    left_out: int = 0
    _clips: dict[tuple[str, str], dict[str, Clip]] = field(default_factory=dict)
    _folders: dict[tuple[str, str], CorpusFolder] = field(default_factory=dict)
    _uris: dict[Clip, str] = field(default_factory=dict)

    def data_uris(self, record: RunRecord, row_id: str) -> tuple[str, ...]:
        """Return the clips of a row of a run as data URIs; unreadable ones are left out and listed in `problems`."""
        uris = [self._embed(clip) for clip in self._clips_of(record, row_id) if self._is_inside(record, clip)]
        return tuple(uri for uri in uris if uri)

    def no_audio(self, record: RunRecord, row_id: str) -> str:
        """Return why clips of a row are not embedded, where they lie outside the corpus folder; else nothing."""
        outside = [clip.path.name for clip in self._clips_of(record, row_id) if not self._is_inside(record, clip)]
        return f"no player: {' and '.join(outside)} outside the corpus folder, by a link or a path" if outside else ""

    def _clips_of(self, record: RunRecord, row_id: str) -> list[Clip]:
        clips = self._corpus_clips(record)
        names = row_id.split(" ") if registry.get_or_base(record.task).trials else [row_id]
        return [clips[name] for name in names if name in clips]

    def _is_inside(self, record: RunRecord, clip: Clip) -> bool:
        return self._folders[_key(record)].holds(clip.path)

    def _corpus_clips(self, record: RunRecord) -> dict[str, Clip]:
        """Every clip of a run's corpus by the id of its row; empty where the corpus no longer exists."""
        key = _key(record)
        if key not in self._clips:
            try:
                if self.budget > 0:
                    corpus = _corpus(record, self.data)
                    self._folders[key] = CorpusFolder(corpus.root)
                    self._clips[key] = _clips(record, corpus)
                else:
                    self._clips[key] = {}
            except (UserError, ValueError) as error:
                first = str(error).splitlines()[0]
                self.problems.append(f"{record.task.upper()}: the audio is not available ({first})")
                self._clips[key] = {}
        return self._clips[key]

    def _embed(self, clip: Clip) -> str | None:
        if clip not in self._uris:
            try:
                uri = _data_uri(clip)
            except UserError as error:
                self.problems.append(str(error))
                return None
            if len(uri) > self.budget:
                self.left_out += 1
                return None
            self.budget -= len(uri)
            self._uris[clip] = uri
        return self._uris[clip]


def _key(record: RunRecord) -> tuple[str, str]:
    return record.task, record.corpus.digest


def _corpus(record: RunRecord, data: Path | None) -> Corpus:
    chosen = recipe_of(record)
    return load_corpus.read_corpus(
        chosen, data or parse_command(record).data or embedded.default_folder(record.profile)
    )


def _clips(record: RunRecord, corpus: Corpus) -> dict[str, Clip]:
    rows = [u for name in ("train", "dev", "test") for u in corpus.splits.get(name, ())]
    unit = registry.get(record.task).unit
    # The test split comes last: where several splits have an id, the clip is that of test.
    return {u.labels.get("recording", u.id) if unit == "recordings" else u.id: u.clip for u in rows}


def _data_uri(clip: Clip) -> str:
    """The beginning of a clip, as upstreams read it, as a data URI: MP3, which every browser plays.

    Raises:
        UserError: see `audio.read`.
    """
    import soundfile

    samples = audio.read(clip)[: round(SECONDS * audio.SAMPLE_RATE)]
    kind, mime = ("MP3", "audio/mpeg") if "MP3" in soundfile.available_formats() else ("FLAC", "audio/flac")
    content = io.BytesIO()
    soundfile.write(content, samples, audio.SAMPLE_RATE, format=kind)
    return f"data:{mime};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
