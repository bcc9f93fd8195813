"""The manifest, one row per utterance: the form in which every corpus reaches tasks and features."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, repeat
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from superb_eval.data import table_io
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError, listed, shortened
from superb_eval.runtime import outside_files

SPLITS = ("train", "dev", "test")

MAX_LISTED = 20
"""Bad rows listed in one message; the others are counted."""

MAX_NAME = 200
"""Characters of a corpus's name."""

NO_SPEAKER = "_none_"
"""The speaker of clips without speech."""


class MissingColumnsError(UserError):
    """A manifest lacks columns; `present` are the label columns that it has, for a task to advise by."""

    def __init__(self, message: str, present: Sequence[str]) -> None:
        super().__init__(message)
        self.present = tuple(present)


@dataclass(frozen=True)
class Utterance:
    """One row: the audio (`clip`), the speaker, and the task's label columns, all as text.

    `line` is the row's number in its manifest (CSV: the line, 1 = the header; Parquet: the row, from 1), and 0 where a
    corpus has no file of rows.
    """

    id: str
    clip: Clip
    speaker: str
    labels: dict[str, str] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True, eq=False)
class UtteranceRows(Sequence[Utterance]):  # noqa: PLW1641 - utterances can't be hashed either
    """Utterances over columns, each built when it is read: a million objects take 1 GB, their columns 60 MB.

    They equal any sequence of the same utterances.

    `ids`, `paths` (relative to `root`), `speakers` and each of `labels` are a `pyarrow.StringArray`; without `speakers`
    the clips are without speech. `starts` and `ends` are in seconds (NaN: at the end of the file); `lines` are row
    numbers. `gain_db` and `trim_silence` are those of every clip.
    """

    root: Path
    ids: Any
    paths: Any
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    speakers: Any | None
    labels: dict[str, Any]
    lines: NDArray[np.int64]
    gain_db: float = 0.0
    trim_silence: bool = False

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[Utterance]:
        for first in range(0, len(self), table_io.BATCH):
            yield from self._build(first, min(table_io.BATCH, len(self) - first))

    @overload
    def __getitem__(self, index: int) -> Utterance: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Utterance, ...]: ...

    def __getitem__(self, index: int | slice) -> Utterance | tuple[Utterance, ...]:
        places = range(len(self))[index]
        if isinstance(places, int):
            return next(self._build(places, 1))
        if places.step == 1:
            return tuple(self._build(places.start, len(places)))
        return tuple(self[place] for place in places)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def column(self, label: str) -> list[str]:
        """Return the cells of a label column, without building a row."""
        cells: list[str] = self.labels[label].to_pylist()
        return cells

    def _build(self, first: int, count: int) -> Iterator[Utterance]:
        """Yield `count` utterances from index `first` on."""
        batch = slice(first, first + count)
        names = self.paths[batch].to_pylist()
        labels = zip(*(cells[batch].to_pylist() for cells in self.labels.values()), strict=True)
        paths = {name: self.root / name for name in set(names)}  # segments of one file share its path
        for row in zip(
            self.ids[batch].to_pylist(),
            map(paths.__getitem__, names),
            self.starts[batch].tolist(),
            self.ends[batch].tolist(),
            repeat(NO_SPEAKER, count) if self.speakers is None else self.speakers[batch].to_pylist(),
            labels if self.labels else repeat((), count),
            self.lines[batch].tolist(),
            strict=True,
        ):
            name, path, start, end, speaker, values, line = row
            clip = Clip(path, start, None if math.isnan(end) else end, self.gain_db, self.trim_silence)
            yield Utterance(name, clip, speaker, dict(zip(self.labels, values, strict=True)), line)


@dataclass(frozen=True)
class Trial:
    """A trial of two utterances of a split, by their ids: is it one speaker (ASV), is the query in the document (QbE)?

    With an empty `test` it stands for `count` trials against documents that are not searched, but that the official
    score counts.
    """

    enroll: str
    test: str
    target: bool
    count: int = 1


class Turn(NamedTuple):
    """A speaker turn; `start` and `end` are in seconds from the beginning of the recording (SD)."""

    start: float
    end: float
    speaker: str


@dataclass(frozen=True)
class Manifest:
    """One split of one task; `trials` are those of tasks that compare utterances."""

    split: str
    utterances: Sequence[Utterance]
    source: Path
    trials: tuple[Trial, ...] = ()

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances)

    def digest(self) -> str:
        """Return a SHA-256 of ids, cuts, labels and trials: the rows' content, independent of the folder's path.

        The bytes of the audio are hashed where they are read (`superb_eval.data.audio.digest`).
        """
        digest = hashlib.sha256(b"[[")
        rows = (
            (u.id, u.clip.path.name, u.clip.start, u.clip.end, u.clip.gain_db, u.speaker, sorted(u.labels.items()))
            for u in self
        )
        separator = ""
        while batch := list(islice(rows, table_io.BATCH)):  # the JSON of a million rows takes a gigabyte
            digest.update(f"{separator}{json.dumps(batch)[1:-1]}".encode())
            separator = ", "
        trials = [(t.enroll, t.test, t.target, t.count) for t in self.trials]
        digest.update(f"], {json.dumps(trials)}]".encode())
        return digest.hexdigest()

    def labels(self, column: str) -> list[str]:
        """Return the cells of a label column, row by row.

        Raises:
            KeyError: a row has no such column.
        """
        rows = self.utterances
        return rows.column(column) if isinstance(rows, UtteranceRows) else [u.labels[column] for u in rows]

    def with_audio(self, gain_db: float, trim_silence: bool) -> Manifest:
        """Return the split with this gain, and with or without trimming, of every clip."""
        rows = self.utterances
        if isinstance(rows, UtteranceRows):
            return replace(self, utterances=replace(rows, gain_db=gain_db, trim_silence=trim_silence))
        clips = (replace(u.clip, gain_db=gain_db, trim_silence=trim_silence) for u in rows)
        return replace(self, utterances=tuple(replace(u, clip=clip) for u, clip in zip(rows, clips, strict=True)))

    def row_name(self, utterance: Utterance) -> str:
        """Return how messages name an utterance's row: its line, its row number, or its id where there is neither."""
        return f"{table_io.row_unit(self.source)} {utterance.line}" if utterance.line else f"'{utterance.id}'"


@dataclass(frozen=True)
class Corpus:
    """The splits of one task, as its head trains on them.

    `name` appears in records and tables; `synthetic` marks generated speech, which no table may call SUPERB. `notes`
    are the corpus's deviations from the protocol, which the record repeats. `expected` is the number of utterances in
    each split of a complete copy of a published corpus. `shared` names what splits have in common by the protocol, so
    that it isn't reported as a leak. `limit` is how many utterances of a split a try has; None: it has all.
    """

    name: str
    root: Path
    splits: dict[str, Manifest]
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    expected: dict[str, int] = field(default_factory=dict)
    shared: str = ""
    limit: int | None = None

    def complete(self) -> bool:
        """Return whether this is an official corpus of which no utterance is missing."""
        return bool(self.expected) and all(len(self.splits[name]) == n for name, n in self.expected.items())

    def clips(self) -> list[Clip]:
        """Return every clip once, in order of first appearance."""
        return list(dict.fromkeys(u.clip for split in self.splits.values() for u in split))


def unseen_labels(train: Manifest, other: Manifest, column: str) -> list[str]:
    """Return a sentence for each row of `other` whose label is in no training row: the head has no output for it."""
    trained = set(train.labels(column))
    if trained.issuperset(other.labels(column)):
        return []
    known = listed(sorted(trained), 12)
    return [
        f"{other.row_name(u)}: {column} '{u.labels[column]}' is never seen in {train.split} (known: {known})"
        for u in other
        if u.labels[column] not in trained
    ]


def check_labels(train: Manifest, other: Manifest, column: str) -> None:
    """Refuse labels in `other` that are in no training row.

    Raises:
        UserError: naming every such row with its line.
    """
    problems = unseen_labels(train, other, column)
    if problems:
        raise UserError(bad_rows_message(other.source, problems))


def bad_rows_message(path: Path, bad: Sequence[str], count: int | None = None) -> str:
    """Return the message that names the bad rows of a file, at most `MAX_LISTED` of them.

    `count` is how many there are, where `bad` holds the first ones alone.
    """
    count = len(bad) if count is None else count
    more = f"\n  (+{count - MAX_LISTED} more)" if count > MAX_LISTED else ""
    return f"{path}: {count} bad row(s):\n  " + "\n  ".join(map(shortened, bad[:MAX_LISTED])) + more


def read_description(root: Path) -> dict[str, object]:
    """Return the content of `<root>/corpus.json`, such as the corpus's name; empty where there is none.

    Raises:
        UserError: that file is not a JSON object, or its name is no text.
    """
    path = root / "corpus.json"
    if not os.path.lexists(path):
        return {}
    description = outside_files.read_json(path)
    if not isinstance(description, dict):
        raise UserError(f'{path}: expected an object such as {{"name": "mine"}}, found {type(description).__name__}.')
    name = description.get("name", "")
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise UserError(f"{path}: 'name' must be a text of at most {MAX_NAME} characters. Fix it.")
    return description
