"""Gives the rows of a source the task's labels and speakers; rows that lack them are left out, by reason."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from downstreams.base import BaseTask, SearchTask, UtteranceTask
from superb_eval.corpora.building.new_row import NewRow
from superb_eval.corpora.building.request import CorpusRequest
from superb_eval.corpora.building.split_plan import SplitPlan
from superb_eval.data.importers import columns
from superb_eval.data.importers.columns import ColumnChoice
from superb_eval.data.importers.source import SourceCorpus, SourceRow
from superb_eval.data.manifest import NO_SPEAKER
from superb_eval.errors import UserError

LeftOut = dict[str, list[str]]
"""For each reason the rows that are left out, as messages name them."""

_DERIVED = ("speaker", "recording", "turns")
"""What tasks read that are no labels of a source."""


class TaskNeeds:
    """What a task needs of a source.

    `columns` and `optional` are label columns; `closed` states that their values are classes. `speakers` states that
    every row needs a speaker, `speaker_classes` that the speakers are the classes, `turns` that rows are recordings.
    """

    def __init__(self, kind: type[BaseTask], columns: Sequence[str]) -> None:
        if issubclass(kind, SearchTask):
            raise UserError(
                f"{kind.name} can't be made of labelled utterances: it searches for queries in documents. Write "
                "manifests: qbe/queries.csv and qbe/docs.csv (columns split: dev or test, id, path, speaker), and "
                "qbe/pairs.csv (split, query, doc, label: 1 where the query is spoken in the document, else 0)."
            )
        label = (kind.label_column,) if kind.label_column else ()
        self.kind = kind
        self.columns = tuple(c for c in dict.fromkeys((*columns, *label)) if c not in _DERIVED)
        self.optional = ("fold",) if kind.name == "er" else ()
        self.speaker_classes = kind.label_column == "speaker"
        self.speakers = self.speaker_classes or kind.trials
        self.turns = "turns" in kind.columns
        self.closed = issubclass(kind, UtteranceTask) and not kind.trials

    def classes(self, labels: Mapping[str, str], speakers: Sequence[str]) -> tuple[str, ...]:
        """Return the classes of a row, each of which train must have; of a recording, whether two speak."""
        if self.speaker_classes:
            return tuple(speakers)
        if self.turns:
            return ("two speakers" if len(speakers) == 2 else "another number",)
        if self.closed:
            return tuple(f"{column}={labels[column]}" for column in self.columns)
        tags = labels.get("iob_canonical", "").split()
        return tuple(dict.fromkeys(f"slot {tag[2:]}" for tag in tags if tag.startswith("B-")))


def label_rows(
    source: SourceCorpus, plan: SplitPlan, needs: TaskNeeds, request: CorpusRequest
) -> tuple[list[NewRow], LeftOut, list[str]]:
    """Return the rows of a source with the task's labels, the rows that are left out, and sentences on what was chosen.

    Raises:
        UserError: a column or the speakers can't be found, or no row is left.
    """
    choice, speaker_column, notes = _columns(source, needs, request)
    pattern = request.pattern()
    left_out: LeftOut = defaultdict(list)
    rows = []
    for split, source_rows in source.splits.items():
        for row in source_rows:
            labels = {column: row.labels.get(name, "").strip() for column, name in choice.names.items()}
            if plan.folds:
                labels["fold"] = labels.get("fold") or split
            speakers = _speakers(row, source.root, speaker_column, pattern)
            reason = _reason(row, labels, speakers, needs)
            if reason:
                left_out[reason].append(row.location)
            else:
                rows.append(NewRow(row.id, row, split, speakers, labels, needs.classes(labels, speakers)))
    _check_pattern(rows, request)
    if not rows:
        raise UserError(f"{source.root}: no row can be used ({describe_left_out(left_out)}).{_speaker_advice(needs)}")
    return _unique_ids(rows, needs), dict(left_out), notes


def describe_left_out(left_out: LeftOut) -> str:
    """Return how many rows are left out by reason, with an example of each."""
    return "; ".join(f"{len(found)} {reason}, such as {found[0]}" for reason, found in left_out.items())


def _columns(source: SourceCorpus, needs: TaskNeeds, request: CorpusRequest) -> tuple[ColumnChoice, str, list[str]]:
    """Return the columns of labels, that of speakers (empty: as the source states them), and sentences on both."""
    present = source.columns()
    choices = {column: name for column, name in request.columns.items() if column != "speaker"}
    advice = "" if request.columns else needs.kind.column_advice(present)
    try:
        choice = columns.resolve(needs.columns, present, choices, () if request.divides() else needs.optional)
    except UserError as error:
        raise UserError(f"{source.root} ({source.kind}): {error} {advice}".rstrip()) from error
    if "fold" in choice.names and not any(
        row.labels.get(choice.names["fold"]) for rows in source.splits.values() for row in rows
    ):
        choice = replace(choice, names={k: v for k, v in choice.names.items() if k != "fold"})
    speaker, speaker_notes = _speaker_column(source, needs, request)
    return choice, speaker, [f"columns: {note}" for note in (*choice.notes, *speaker_notes)]


def _speaker_column(source: SourceCorpus, needs: TaskNeeds, request: CorpusRequest) -> tuple[str, tuple[str, ...]]:
    named = {column: name for column, name in request.columns.items() if column == "speaker"}
    if request.speaker:
        if named:
            raise UserError("--speaker finds the speaker in file names, --column speaker=NAME in a column: give one.")
        return "", (f"speaker is matched by {request.speaker} in the file's name, else in its path",)
    stated = any(row.speaker for rows in source.splits.values() for row in rows)
    if stated and named.get("speaker", "speaker") == "speaker":
        return "", ()
    aliases = columns.SPEAKER_CLASSES if needs.speaker_classes else columns.ALIASES
    choice = columns.resolve((), source.columns(), named, ("speaker",), aliases)
    return choice.names.get("speaker", ""), choice.notes


def _speakers(row: SourceRow, root: Path, column: str, pattern: re.Pattern[str] | None) -> tuple[str, ...]:
    if row.turns:
        return tuple(sorted({turn.speaker for turn in row.turns}))
    if pattern:
        names = (
            (row.audio.name, _relative(row.audio, root)) if isinstance(row.audio, Path) else (row.audio.name, row.id)
        )
        match = next(filter(None, map(pattern.search, names)), None)
        return (match[1],) if match and match[1] else ()
    speaker = row.labels.get(column, "").strip() if column else row.speaker
    return (speaker,) if speaker not in ("", NO_SPEAKER) else ()


def _check_pattern(rows: Sequence[NewRow], request: CorpusRequest) -> None:
    if request.speaker and rows and not any(row.speakers for row in rows):
        file = rows[0].row.audio.name or rows[0].id
        raise UserError(f"--speaker {request.speaker}: matches no file's name or path, such as {file}.")


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _reason(row: SourceRow, labels: Mapping[str, str], speakers: tuple[str, ...], needs: TaskNeeds) -> str:
    """Return why a row can't be used, or an empty string."""
    missing = [column for column, label in labels.items() if not label]
    if missing:
        return f"without {' and '.join(missing)}"
    if needs.turns and not row.turns:
        return "without turns"
    return "without a speaker" if needs.speakers and not speakers else ""


def _speaker_advice(needs: TaskNeeds) -> str:
    if not needs.speakers:
        return ""
    return " Name the column of speakers (--column speaker=NAME), or find them in file names (--speaker PATTERN)."


def _unique_ids(rows: Sequence[NewRow], needs: TaskNeeds) -> list[NewRow]:
    """Return rows whose ids are unique in the whole corpus: the split's name is put before those that aren't.

    Lists of trials and RTTM separate ids by spaces, so that spaces in them become `_` there.
    """
    if needs.kind.trials or needs.turns:
        rows = [replace(row, id="_".join(row.id.split())) for row in rows]
    counts = Counter(row.id for row in rows)
    unique = [replace(row, id=f"{row.split}-{row.id}") if counts[row.id] > 1 else row for row in rows]
    places: dict[str, str] = {}
    for row in unique:
        if row.id in places:
            raise UserError(f"{row.row.location}: the id '{row.id}' is already that of {places[row.id]}. Rename one.")
        places[row.id] = row.row.location
    return unique
