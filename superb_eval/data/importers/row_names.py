"""Ids of rows whose format states none: from a column `id`, else from the files' names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from superb_eval.data.importers.source import SourceRow

PATH_COLUMNS = ("file", "path")
"""Columns of text that may hold the path of a file whose audio lies in the table."""


def name_rows(rows: Sequence[SourceRow], split: str, notes: list[str]) -> list[SourceRow]:
    """Return rows with ids that are unique among them; rows that have one keep it.

    An id is that of the column `id` where it differs from row to row, else the end of the audio's path, with as many
    folders as make it unique, else that of a column of paths, else the row's number. `notes` gets a sentence where a
    column `id` isn't unique.
    """
    if all(row.id for row in rows):
        return list(rows)
    column = [row.labels.get("id", "") for row in rows]
    if _unique(column):
        labels = [{key: value for key, value in row.labels.items() if key != "id"} for row in rows]
        return [replace(row, id=name, labels=rest) for row, name, rest in zip(rows, column, labels, strict=True)]
    if any(column):
        notes.append("the column id isn't unique: ids are those of files or rows, and it is a label")
    for path in _paths():
        names = _ends([PurePosixPath(path(row)) for row in rows])
        if names:
            return [replace(row, id=name) for row, name in zip(rows, names, strict=True)]
    return [replace(row, id=f"{split}-{number:06d}") for number, row in enumerate(rows, start=1)]


def _paths() -> Iterator[Callable[[SourceRow], str]]:
    yield lambda row: row.audio.as_posix() if isinstance(row.audio, Path) else row.audio.name
    for column in PATH_COLUMNS:
        yield lambda row, column=column: row.labels.get(column, "")  # type: ignore[misc]


def _ends(paths: Sequence[PurePosixPath]) -> list[str]:
    """Return the shortest ends of paths, without their endings, that are unique; [] where none are."""
    parts = [path.with_suffix("").parts if path.name else () for path in paths]
    for count in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(p[-count:]) for p in parts]
        if _unique(names):
            return names
    return []


def _unique(names: Sequence[str]) -> bool:
    return all(names) and len(set(names)) == len(names)
