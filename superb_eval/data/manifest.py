"""The manifest, one row per utterance: the form in which every corpus reaches tasks and features."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from superb_eval.data import table_io
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError, near_miss

SPLITS = ("train", "dev", "test")

MAX_LISTED = 20
"""Bad rows listed in one message; the others are counted."""

NO_SPEAKER = "_none_"
"""The speaker of clips without speech."""

_NO_LABELS = ("id", "path", "speaker", "start", "end", "duration_s", "")


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
    utterances: tuple[Utterance, ...]
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
        content = [
            (u.id, u.clip.path.name, u.clip.start, u.clip.end, u.clip.gain_db, u.speaker, sorted(u.labels.items()))
            for u in self
        ]
        trials = [(t.enroll, t.test, t.target, t.count) for t in self.trials]
        return hashlib.sha256(json.dumps([content, trials]).encode()).hexdigest()

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


def read(
    root: Path,
    task: str,
    columns: Sequence[str],
    splits: Sequence[str] = SPLITS,
    *,
    allow_links: bool | None = None,
    speaker: bool = True,
    aliases: Mapping[str, str] | None = None,
) -> Corpus:
    """Read `<root>/<task>/{train,dev,test}.csv` (or `.parquet`); paths in them are relative to `root`.

    `allow_links=False` refuses audio that symbolic links lead to outside `root`. With `speaker=False` that column is
    optional. `aliases` are other names under which a column is read where it is missing.

    Raises:
        UserError: a split is missing, or rows are bad; then every bad row is named with its line.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such corpus folder. Give an existing folder with --data.")
    folder = root / task
    if not folder.is_dir():
        tasks = sorted(p.parent.name for suffix in ("csv", "parquet") for p in root.glob(f"*/train.{suffix}"))
        present = ", ".join(tasks) or "none"
        raise UserError(f"{root}: has no folder '{task}' with manifests (tasks there: {present}).")
    description = read_description(root)
    return Corpus(
        name=str(description.get("name", root.resolve().name)),
        root=root,
        splits={
            split: read_split(
                folder, split, columns, root, allow_links=allow_links, speaker=speaker, aliases=aliases or {}
            )
            for split in splits
        },
        synthetic=bool(description.get("synthetic", False)),
    )


def read_split(
    folder: Path,
    split: str,
    columns: Sequence[str],
    root: Path,
    *,
    allow_links: bool | None = None,
    speaker: bool = True,
    aliases: Mapping[str, str] | None = None,
) -> Manifest:
    """Read and validate one split; `columns` are the label columns that the task needs, `aliases` their other names.

    Raises:
        MissingColumnsError: columns are missing.
        UserError: naming every bad row (up to `MAX_LISTED`) with its line and what is wrong.
    """
    path = _split_file(folder, split)
    table = table_io.read(path)
    canonical = {other: name for name, other in (aliases or {}).items() if name not in table.columns}
    table = replace(table, columns=[canonical.get(column, column) for column in table.columns])
    required = tuple(dict.fromkeys(("id", "path", *(("speaker",) if speaker else ()), *columns)))
    _check_columns(path, table.columns, required)
    if not table.rows:
        raise UserError(f"{path}: has column names but no rows. Add a row for each utterance.")
    labels = [column for column in table.columns if column in columns or column not in _NO_LABELS]
    with table_io.paused_garbage_collection():
        utterances, bad = _utterances(table, required, labels, table_io.AudioPaths(root, allow_links), root)
    if bad:
        raise UserError(bad_rows_message(path, [f"{table_io.row_unit(path)} {problem}" for problem in bad]))
    return Manifest(split=split, utterances=tuple(utterances), source=path)


def _utterances(
    table: table_io.Table, required: Sequence[str], labels: Sequence[str], paths: table_io.AudioPaths, root: Path
) -> tuple[list[Utterance], list[str]]:
    """Return the utterances of valid rows, and for each bad row its number and its problems."""
    bad: list[str] = []
    seen: dict[str, int] = {}
    utterances: list[Utterance] = []
    for number, row in zip(table.row_numbers, table.rows, strict=True):
        cells = dict(zip(table.columns, row, strict=False))
        problems = (
            _problems(cells, required, paths, seen) if len(row) == len(table.columns) else [_wrong_width(row, table)]
        )
        seen.setdefault(cells.get("id", ""), number)
        if problems:
            bad.append(f"{number}: {'; '.join(problems)}")
        else:
            clip = Clip(root / cells["path"], *clip_bounds(cells))
            # The speaker is a label where a task asks for it.
            values = {column: cells[column] for column in labels}
            utterances.append(Utterance(cells["id"], clip, cells.get("speaker", NO_SPEAKER), values, number))
    return utterances, bad


def unseen_labels(train: Manifest, other: Manifest, column: str) -> list[str]:
    """Return a sentence for each row of `other` whose label is in no training row: the head has no output for it."""
    trained = {u.labels[column] for u in train}
    shown = sorted(trained)[:12]
    more = f" and {len(trained) - len(shown)} more" if len(trained) > len(shown) else ""
    return [
        f"{other.row_name(u)}: {column} '{u.labels[column]}' is never seen in {train.split} "
        f"(known: {', '.join(shown)}{more})"
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


def bad_rows_message(path: Path, bad: Sequence[str]) -> str:
    """Return the message that names the bad rows of a file, at most `MAX_LISTED` of them."""
    more = f"\n  (+{len(bad) - MAX_LISTED} more)" if len(bad) > MAX_LISTED else ""
    return f"{path}: {len(bad)} bad row(s):\n  " + "\n  ".join(bad[:MAX_LISTED]) + more


def read_description(root: Path) -> dict[str, object]:
    """Return the content of `<root>/corpus.json`, such as the corpus's name; empty where there is none.

    Raises:
        UserError: that file is not a JSON object.
    """
    path = root / "corpus.json"
    if not path.is_file():
        return {}
    try:
        description = json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). Fix it or remove it.") from error
    if not isinstance(description, dict):
        raise UserError(f'{path}: expected an object such as {{"name": "mine"}}, found {type(description).__name__}.')
    return description


def _split_file(folder: Path, split: str) -> Path:
    for path in (folder / f"{split}.csv", folder / f"{split}.parquet"):
        if path.is_file():
            return path
    raise UserError(f"{folder}: has no {split}.csv (or .parquet). A manifest corpus holds {', '.join(SPLITS)}.")


def _check_columns(path: Path, columns: Sequence[str], required: Sequence[str]) -> None:
    missing = [column for column in required if column not in columns]
    if missing:
        labels = [column for column in columns if column not in _NO_LABELS]
        hint = "".join(near_miss(column, labels if column not in _NO_LABELS else columns) for column in missing)
        if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
            hint = " Separate the columns with commas."
        present = ", ".join(columns)
        message = f"{path}: missing column(s) {', '.join(missing)} (found: {present}).{hint}"
        raise MissingColumnsError(message, labels)
    twice = sorted({column for column in columns if column and columns.count(column) > 1})
    if twice:
        raise UserError(f"{path}: column(s) {', '.join(twice)} appear twice. Remove one of each.")


def _wrong_width(row: Sequence[str], table: table_io.Table) -> str:
    return f"has {len(row)} cells where there are {len(table.columns)} columns (quote cells that hold commas)"


def _problems(
    cells: Mapping[str, str], required: Sequence[str], paths: table_io.AudioPaths, seen: Mapping[str, int]
) -> list[str]:
    """Return a sentence for each problem of one row."""
    problems = [f"empty {column}" for column in required if not cells[column]]
    if cells["id"] and cells["id"] in seen:
        problems.append(f"id '{cells['id']}' is already that of {seen[cells['id']]}")
    if cells["path"]:
        problems += paths.problems(cells["path"])
    return problems + _time_problems(cells)


def _time_problems(cells: Mapping[str, str]) -> list[str]:
    if not cells.get("start") and not cells.get("end"):
        return []
    try:
        start, end = clip_bounds(cells)
    except ValueError:
        return [f"start '{cells.get('start', '')}' and end '{cells.get('end', '')}' must be seconds, or empty"]
    # Written so that NaN, which compares false with everything, is refused too.
    if not (0 <= start < math.inf and (end is None or start < end < math.inf)):
        return [f"start {start} s and end {end} s do not bound a segment of audio"]
    return []


def clip_bounds(cells: Mapping[str, str]) -> tuple[float, float | None]:
    """Return where a row's clip starts and ends, in seconds (None: at the end of the file).

    Raises:
        ValueError: a cell isn't a number.
    """
    return _seconds(cells.get("start")) or 0.0, _seconds(cells.get("end"))


def _seconds(cell: str | None) -> float | None:
    return float(cell) if cell else None
