"""Reads manifests: checks their columns at once, and names every bad row with its line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superb_eval.data import table_io
from superb_eval.data.audio_paths import AudioPaths
from superb_eval.data.manifest import (
    MAX_LISTED,
    SPLITS,
    Corpus,
    Manifest,
    MissingColumnsError,
    UtteranceRows,
    bad_rows_message,
    read_description,
)
from superb_eval.data.table_io import Table
from superb_eval.errors import UserError, listed, near_miss

_NO_LABELS = ("id", "path", "speaker", "start", "end", "duration_s", "")


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
        raise absent_corpus(root)
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
    if not len(table):
        raise UserError(f"{path}: has column names but no rows. Add a row for each utterance.")
    checked = _CheckedRows(table, required, AudioPaths(root, allow_links))
    if checked.bad.any():
        problems = [f"{table_io.row_unit(path)} {problem}" for problem in checked.problems(MAX_LISTED)]
        raise UserError(bad_rows_message(path, problems, int(checked.bad.sum())))
    labels = [column for column in table.columns if column in columns or column not in _NO_LABELS]
    return Manifest(split=split, utterances=checked.utterances(root, labels), source=path)


class _CheckedRows:
    """The columns of a table, checked: `bad[i]` is whether row i has a problem.

    Each distinct cell is checked once; the sentences are made for the rows that are listed alone.
    """

    def __init__(self, table: Table, required: Sequence[str], paths: AudioPaths) -> None:
        self.table, self.required, self.paths = table, required, paths
        self.cells: dict[str, Any] = dict(zip(table.columns, table.cells, strict=True))
        self.starts, self.ends = self._times("start"), self._times("end")
        self.bad = np.zeros(len(table), dtype=bool)
        self.bad[list(table.uneven)] = True
        for column in required:
            self.bad |= self._is_empty(column)
        self.bad |= self._is_repeated_id() | self._is_bad_path() | self._is_bad_segment()

    def _is_empty(self, column: str) -> NDArray[np.bool_]:
        import pyarrow.compute as pc

        return np.asarray(pc.equal(self.cells[column], ""))

    def _is_repeated_id(self) -> NDArray[np.bool_]:
        """Return which rows have the id of an earlier one; empty ids repeat nothing."""
        places, ids = _distinct(self.cells["id"])
        if len(ids) == len(places):
            return np.zeros(len(places), dtype=bool)
        repeated = np.ones(len(places), dtype=bool)
        repeated[np.unique(places, return_index=True)[1]] = False
        return repeated & ~self._is_empty("id")

    def _is_bad_path(self) -> NDArray[np.bool_]:
        places, paths = _distinct(self.cells["path"])
        return np.array([bool(path and self.paths.problems(path)) for path in paths], dtype=bool)[places]

    def _times(self, column: str) -> _Times:
        if column not in self.cells:
            missing = np.ones(len(self.table), dtype=bool)
            return _Times(np.full(len(missing), math.nan), missing, ~missing)
        places, cells = _distinct(self.cells[column])
        seconds = [_seconds_or_text(cell) for cell in cells]
        return _Times(
            np.array([s if isinstance(s, float) else math.nan for s in seconds], dtype=np.float64)[places],
            np.array([s is None for s in seconds], dtype=bool)[places],
            np.array([isinstance(s, str) for s in seconds], dtype=bool)[places],
        )

    def _is_bad_segment(self) -> NDArray[np.bool_]:
        start, end = np.where(self.starts.missing, 0.0, self.starts.seconds), self.ends.seconds
        # Written so that NaN, which compares false with everything, is refused too.
        bounds = (start >= 0) & (start < math.inf) & (self.ends.missing | ((start < end) & (end < math.inf)))
        is_bad: NDArray[np.bool_] = ~bounds | self.starts.wrong | self.ends.wrong
        return is_bad

    def problems(self, count: int) -> Iterator[str]:
        """Yield the numbers of the first `count` bad rows, each with its problems."""
        for index in np.flatnonzero(self.bad)[:count].tolist():
            ((number, row),) = self.table.rows(index, index + 1)
            cells = dict(zip(self.table.columns, row, strict=False))
            found = self._row_problems(index, cells) if index not in self.table.uneven else [self._wrong_width(row)]
            yield f"{number}: {'; '.join(found)}"

    def _wrong_width(self, row: Sequence[str]) -> str:
        width = len(self.table.columns)
        return f"has {len(row)} cells where there are {width} columns (quote cells that hold commas)"

    def _row_problems(self, index: int, cells: Mapping[str, str]) -> list[str]:
        """Return a sentence for each problem of one row."""
        import pyarrow.compute as pc

        problems = [f"empty {column}" for column in self.required if not cells[column]]
        first = pc.index(self.cells["id"], cells["id"]).as_py()
        if cells["id"] and first < index:
            problems.append(f"id '{cells['id']}' is already that of {self.table.row_numbers[first]}")
        if cells["path"]:
            problems += self.paths.problems(cells["path"])
        return problems + _time_problems(cells)

    def utterances(self, root: Path, labels: Sequence[str]) -> UtteranceRows:
        """Return the rows, with these label columns; the speaker is a label where a task asks for it."""
        return UtteranceRows(
            root,
            self.cells["id"],
            self.cells["path"],
            np.where(self.starts.missing, 0.0, self.starts.seconds),
            self.ends.seconds,
            self.cells.get("speaker"),
            {column: self.cells[column] for column in labels},
            self.table.row_numbers,
        )


@dataclass(frozen=True)
class _Times:
    """A column of times: the `seconds` (NaN where there are none), and which cells are empty or no number."""

    seconds: NDArray[np.float64]
    missing: NDArray[np.bool_]
    wrong: NDArray[np.bool_]


def absent_corpus(root: Path) -> UserError:
    """Return the error of a corpus folder that isn't there; it names the one beside it that is called alike."""
    hint = near_miss(root.name, os.listdir(root.parent)) if root.parent.is_dir() else ""
    return UserError(f"{root}: no such corpus folder.{hint} Give an existing folder with --data.")


def _distinct(cells: Any) -> tuple[NDArray[np.int32], list[str]]:
    """Return the distinct cells of a column, and the place of each row's cell among them."""
    encoded = cells.dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def _seconds_or_text(cell: str) -> float | str | None:
    """Return a cell's seconds, None where it is empty, or the cell itself where it is no number."""
    try:
        return _seconds(cell)
    except ValueError:
        return cell


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
        message = f"{path}: missing column(s) {', '.join(missing)} (found: {listed(columns)}).{hint}"
        raise MissingColumnsError(message, labels)
    twice = sorted({column for column in columns if column and columns.count(column) > 1})
    if twice:
        raise UserError(f"{path}: column(s) {listed(twice)} appear twice. Remove one of each.")


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
