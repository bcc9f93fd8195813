"""The manifest: one row per utterance, the only thing that corpora hand on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from superb_eval.data import table_io
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError, near_miss

SPLITS = ("train", "dev", "test")

MAX_LISTED = 20
"""Bad rows listed in one message; the rest is counted."""

NOBODY = "_none_"
"""The speaker of clips in which nobody speaks."""

_NO_LABELS = ("id", "path", "speaker", "start", "end", "duration_s", "")


@dataclass(frozen=True)
class Utterance:
    """One row: what to hear (`clip`), who speaks, and the task's label columns, all as text.

    `line` is where the row begins in its manifest (CSV: the line, 1 = the header; Parquet: the row, from 1), and 0
    where a corpus had no file of rows.
    """

    id: str
    clip: Clip
    speaker: str
    labels: dict[str, str] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True)
class Trial:
    """A question about two utterances of a split, by their ids: one speaker (ASV)? the query in the document (QbE)?

    With an empty `test` it stands for `count` questions that nobody can answer but the score counts: about documents
    that are not searched.
    """

    enroll: str
    test: str
    target: bool
    count: int = 1


class Turn(NamedTuple):
    """A stretch in which somebody speaks; `start` and `end` are in seconds from the beginning of the recording (SD)."""

    start: float
    end: float
    speaker: str


@dataclass(frozen=True)
class Manifest:
    """One split of one task. `trials` are asked in it by tasks that compare utterances."""

    split: str
    utterances: tuple[Utterance, ...]
    source: Path
    trials: tuple[Trial, ...] = ()

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances)

    def digest(self) -> str:
        """Return a SHA-256 of ids, cuts, labels and trials: the rows' content, wherever the folder lies.

        The bytes of the audio are hashed where they are read (`superb_eval.data.audio.digest`).
        """
        content = [
            (u.id, u.clip.path.name, u.clip.start, u.clip.end, u.clip.gain_db, u.speaker, sorted(u.labels.items()))
            for u in self
        ]
        trials = [(t.enroll, t.test, t.target, t.count) for t in self.trials]
        return hashlib.sha256(json.dumps([content, trials]).encode()).hexdigest()

    def place(self, utterance: Utterance) -> str:
        """Return where an utterance stands, for messages: its line, its row, or its id where there are neither."""
        return f"{table_io.unit(self.source)} {utterance.line}" if utterance.line else f"'{utterance.id}'"


@dataclass(frozen=True)
class Corpus:
    """The splits of one task, ready for it.

    `name` stands in records and tables; `synthetic` marks generated speech, which no table may call SUPERB.
    `notes` are departures from the protocol that the corpus made, to be repeated in the record. `expected` gives the
    utterances of each split of a complete copy, where the corpus is a published one. `shared` names what splits have in
    common by the protocol, so that nobody takes it for a leak.
    """

    name: str
    root: Path
    splits: dict[str, Manifest]
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    expected: dict[str, int] = field(default_factory=dict)
    shared: str = ""

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
    allow_links: bool = False,
    speaker: bool = True,
) -> Corpus:
    """Read `<root>/<task>/{train,dev,test}.csv` (or `.parquet`); paths in them are relative to `root`.

    `allow_links` accepts audio that symbolic links fetch from outside `root`: only for manifests you trust. Without
    `speaker` rows need not name one.

    Raises:
        UserError: a split is missing, or rows are bad; then every bad row is named with its line.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such corpus folder. Give its place with --data.")
    folder = root / task
    if not folder.is_dir():
        tasks = sorted(p.parent.name for suffix in ("csv", "parquet") for p in root.glob(f"*/train.{suffix}"))
        there = ", ".join(tasks) or "none"
        raise UserError(f"{root}: has no folder '{task}' with manifests (tasks there: {there}).")
    described = about(root)
    return Corpus(
        name=str(described.get("name", root.resolve().name)),
        root=root,
        splits={
            split: read_split(folder, split, columns, root, allow_links=allow_links, speaker=speaker)
            for split in splits
        },
        synthetic=bool(described.get("synthetic", False)),
    )


def read_split(
    folder: Path, split: str, columns: Sequence[str], root: Path, *, allow_links: bool = False, speaker: bool = True
) -> Manifest:
    """Read and validate one split; `columns` are the label columns that the task needs.

    Raises:
        UserError: naming every bad row (up to `MAX_LISTED`) with its line and what is wrong.
    """
    path = _find(folder, split)
    table = table_io.read(path)
    needed = tuple(dict.fromkeys(("id", "path", *(("speaker",) if speaker else ()), *columns)))
    _check_columns(path, table.columns, needed)
    if not table.rows:
        raise UserError(f"{path}: has column names but no rows. Add a row for each utterance.")
    labels = [column for column in table.columns if column in columns or column not in _NO_LABELS]
    with table_io.unswept():
        utterances, bad = _utterances(table, needed, labels, table_io.Files(root, allow_links), root)
    if bad:
        raise UserError(listing(path, [f"{table_io.unit(path)} {problem}" for problem in bad]))
    return Manifest(split=split, utterances=tuple(utterances), source=path)


def _utterances(
    table: table_io.Table, needed: Sequence[str], labels: Sequence[str], files: table_io.Files, root: Path
) -> tuple[list[Utterance], list[str]]:
    """Return the utterances of good rows, and for each bad one its place and what is wrong with it."""
    bad: list[str] = []
    seen: dict[str, int] = {}
    found: list[Utterance] = []
    for place, row in zip(table.places, table.rows, strict=True):
        cells = dict(zip(table.columns, row, strict=False))
        wrong = _problems(cells, needed, files, seen) if len(row) == len(table.columns) else [_width(row, table)]
        seen.setdefault(cells.get("id", ""), place)
        if wrong:
            bad.append(f"{place}: {'; '.join(wrong)}")
        else:
            clip = Clip(root / cells["path"], *cut(cells))
            # The speaker is a label where a task asks for it.
            known = {column: cells[column] for column in labels}
            found.append(Utterance(cells["id"], clip, cells.get("speaker", NOBODY), known, place))
    return found, bad


def unseen_labels(train: Manifest, other: Manifest, column: str) -> list[str]:
    """Return a sentence for each row of `other` whose label no training row has: a head has no output for it."""
    known = {u.labels[column] for u in train}
    some = sorted(known)[:12]
    more = f" and {len(known) - len(some)} more" if len(known) > len(some) else ""
    return [
        f"{other.place(u)}: {column} '{u.labels[column]}' is never seen in {train.split} "
        f"(known: {', '.join(some)}{more})"
        for u in other
        if u.labels[column] not in known
    ]


def check_labels(train: Manifest, other: Manifest, column: str) -> None:
    """Refuse labels in `other` that no training row has.

    Raises:
        UserError: naming every such row with its line.
    """
    problems = unseen_labels(train, other, column)
    if problems:
        raise UserError(listing(other.source, problems))


def listing(path: Path, bad: Sequence[str]) -> str:
    """Return the message that names bad rows of a file, the first `MAX_LISTED` of them."""
    more = f"\n  (+{len(bad) - MAX_LISTED} more)" if len(bad) > MAX_LISTED else ""
    return f"{path}: {len(bad)} bad row(s):\n  " + "\n  ".join(bad[:MAX_LISTED]) + more


def about(root: Path) -> dict[str, object]:
    """Return what a corpus says of itself in `<root>/corpus.json`; nothing where it has none.

    Raises:
        UserError: that file is not a JSON object.
    """
    path = root / "corpus.json"
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). Mend it or remove it.") from error
    if not isinstance(about, dict):
        raise UserError(f'{path}: expected an object such as {{"name": "mine"}}, found {type(about).__name__}.')
    return about


def _find(folder: Path, split: str) -> Path:
    for path in (folder / f"{split}.csv", folder / f"{split}.parquet"):
        if path.is_file():
            return path
    raise UserError(f"{folder}: has no {split}.csv (or .parquet). A manifest corpus holds {', '.join(SPLITS)}.")


def _check_columns(path: Path, columns: Sequence[str], needed: Sequence[str]) -> None:
    missing = [column for column in needed if column not in columns]
    if missing:
        hint = "".join(near_miss(column, columns) for column in missing)
        if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
            hint = " Separate the columns with commas."
        found = ", ".join(columns)
        raise UserError(f"{path}: missing column(s) {', '.join(missing)} (found: {found}).{hint}")
    twice = sorted({column for column in columns if column and columns.count(column) > 1})
    if twice:
        raise UserError(f"{path}: column(s) {', '.join(twice)} stand there twice. Keep one of each.")


def _width(row: Sequence[str], table: table_io.Table) -> str:
    return f"has {len(row)} cells where there are {len(table.columns)} columns (quote cells that hold commas)"


def _problems(
    cells: Mapping[str, str], needed: Sequence[str], files: table_io.Files, seen: Mapping[str, int]
) -> list[str]:
    """Everything that is wrong with one row."""
    wrong = [f"empty {column}" for column in needed if not cells[column]]
    if cells["id"] and cells["id"] in seen:
        wrong.append(f"id '{cells['id']}' is already that of {seen[cells['id']]}")
    if cells["path"]:
        wrong += files.problems(cells["path"])
    return wrong + _time_problems(cells)


def _time_problems(cells: Mapping[str, str]) -> list[str]:
    if not cells.get("start") and not cells.get("end"):
        return []
    try:
        start, end = cut(cells)
    except ValueError:
        return [f"start '{cells.get('start', '')}' and end '{cells.get('end', '')}' must be seconds, or empty"]
    # Written so that NaN, which compares false with everything, is refused too.
    if not (0 <= start < math.inf and (end is None or start < end < math.inf)):
        return [f"start {start} s and end {end} s do not bound a stretch of audio"]
    return []


def cut(cells: Mapping[str, str]) -> tuple[float, float | None]:
    """Return where a row's clip starts and ends, in seconds (None: with the file); raises ValueError."""
    return _seconds(cells.get("start")) or 0.0, _seconds(cells.get("end"))


def _seconds(cell: str | None) -> float | None:
    return float(cell) if cell else None
