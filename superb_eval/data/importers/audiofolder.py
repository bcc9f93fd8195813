"""Folders in the layout of Hugging Face's `audiofolder`: audio beside a table `metadata` with a column `file_name`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from superb_eval.data import table_io
from superb_eval.data.audio_paths import AudioPaths
from superb_eval.data.importers import json_lines
from superb_eval.data.importers.columns import split_candidates
from superb_eval.data.importers.row_names import name_rows
from superb_eval.data.importers.source import SourceCorpus, SourceRow, raise_if_bad
from superb_eval.errors import UserError, listed

KIND = "Hugging Face audiofolder"

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

FILE_COLUMNS = ("file_name", "audio_file_name")


def split_names(root: Path) -> list[str]:
    """Return the names of the folders with a table, [""] where only `root` has one, and [] where none has."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    divided = [folder.name for folder in folders if _table(folder)]
    if divided:
        return divided
    if _table(root) is None:
        return []
    names = _split_folders(root)
    return names or [""]


def read(root: Path, names: Sequence[str], turns: bool) -> SourceCorpus:
    """Return the rows of the splits `names`; `speaker` is the column of that name. Turns are never stated.

    One table at `root` that lists files of folders named as splits (`train/a.wav`) is divided by them.

    Raises:
        UserError: rows are bad; all are named.
    """
    del turns
    bad, notes = list[str](), list[str]()
    whole = list(_rows(root, root, bad)) if _table(root) and not all(_table(root / name) for name in names) else None
    splits = {}
    for name in names:
        rows = list(_rows(root / name, root, bad)) if whole is None else _in_folder(whole, root, name)
        splits[name] = tuple(name_rows(rows, name or root.name, notes))
    raise_if_bad(root, bad)
    return SourceCorpus(KIND, root, splits, tuple(dict.fromkeys(notes)))


def _in_folder(rows: Sequence[SourceRow], root: Path, name: str) -> list[SourceRow]:
    return [row for row in rows if not name or _first_folder(row, root) == name]


def _first_folder(row: SourceRow, root: Path) -> str:
    return Path(str(row.audio)).relative_to(root).parts[0]


def _split_folders(root: Path) -> list[str]:
    """Return the folders of the files in the table at `root`, where each is named as a split."""
    bad: list[str] = []
    rows = list(_rows(root, root, bad))
    names = [] if bad else list(dict.fromkeys(_first_folder(row, root) for row in rows))
    return names if all(any(split_candidates([name]).values()) and (root / name).is_dir() for name in names) else []


def _table(folder: Path) -> Path | None:
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def _rows(folder: Path, root: Path, bad: list[str]) -> Iterator[SourceRow]:
    """Yield the rows of a folder's table; the sentences on bad ones are appended to `bad`."""
    path = _table(folder)
    if path is None:
        return
    # Files outside the folder are refused, as in manifests: a data set may come from anywhere.
    paths = AudioPaths(folder, allow_links=True)
    for number, cells in _json_lines(path) if path.suffix == ".jsonl" else _cells(path):
        location = f"{path.relative_to(root).as_posix()}, {table_io.row_unit(path)} {number}"
        column = next((name for name in FILE_COLUMNS if name in cells), None)
        if column is None:
            raise UserError(f"{path}: has no column {FILE_COLUMNS[0]} (found: {listed(list(cells))}).")
        name = cells[column]
        problems = paths.problems(name) if name else [f"empty {column}"]
        bad += [f"{location}: {problem}" for problem in problems]
        labels = {key: value for key, value in cells.items() if key not in (column, "speaker")}
        if not problems:
            yield SourceRow("", folder / name, location, speaker=cells.get("speaker", ""), labels=labels)


def _cells(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    table = table_io.read(path)
    for number, row in table.rows():
        if len(row) != len(table.columns):
            unit = table_io.row_unit(path)
            raise UserError(
                f"{path}: {unit} {number} has {len(row)} cells where there are {len(table.columns)} columns."
            )
        yield number, dict(zip(table.columns, row, strict=True))


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for number, content in json_lines.read(path):
        yield number, {str(key): json_lines.text(value) for key, value in content.items()}
