"""Tables in CSV or Parquet as rows of text with their line numbers, and checks of the audio paths that they name."""

from __future__ import annotations

import csv
import gc
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from superb_eval.errors import UserError


@dataclass(frozen=True)
class Table:
    """Cells as text without surrounding spaces; `row_numbers[i]` belongs to `rows[i]`.

    In CSV that is the line on which the row begins (1: the header), in Parquet the number of the row (from 1).
    A row may hold more or fewer cells than there are `columns`.
    """

    columns: list[str]
    rows: list[list[str]]
    row_numbers: list[int]


def row_unit(path: Path) -> str:
    """Return the unit of a table's row numbers: "row" (Parquet) or "line" (CSV)."""
    return "row" if path.suffix == ".parquet" else "line"


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Pause the garbage collector: reading a table frees nothing, and repeated collections double its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read(path: Path) -> Table:
    """Read a `.csv` (UTF-8, commas, quotes doubled inside quotes) or `.parquet`.

    The standard library's reader is used because pandas' doesn't report a row's line, takes the first column for an
    index where rows have one cell too many, and pads those that have too few.

    Raises:
        UserError: the file can't be read as such a table; with the line where there is one.
    """
    try:
        with paused_garbage_collection():
            return _parquet(path) if path.suffix == ".parquet" else _csv(path)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error}). Check that it is complete.") from error


def _csv(path: Path) -> Table:
    rows, row_numbers = [], []
    for number, cells in _records(path, _text(path)):
        rows.append([cell.strip() for cell in cells])
        row_numbers.append(number)
    if not rows:
        raise UserError(f"{path}: is empty; expected a line of column names such as id,path,speaker, then rows.")
    return Table(rows[0], rows[1:], row_numbers[1:])


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}: line {line}: not UTF-8 (byte {content[error.start]:#x}). Save it as UTF-8."
        ) from error


def _records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record but blank lines, with the line on which it begins: quoted cells may span lines."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    first_line = 1
    try:
        for cells in reader:
            if cells:
                yield first_line, cells
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}: line {first_line}: not CSV ({error}). Check the quotes there.") from error


def _parquet(path: Path) -> Table:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: Parquet needs pyarrow: pip install pyarrow. Or save the table as CSV.") from error
    try:
        table = parquet.read_table(path)
        columns = [
            ["" if cell is None else str(cell).strip() for cell in column.to_pylist()] for column in table.columns
        ]
    except ValueError as error:  # pyarrow's own errors are ValueErrors, and so is text that isn't UTF-8
        raise UserError(f"{path}: can't be read as Parquet ({error}). Check that it is complete.") from error
    rows = [list(cells) for cells in zip(*columns, strict=True)]
    return Table(list(table.column_names), rows, list(range(1, len(rows) + 1)))


class AudioPaths:
    """Checks the audio paths in a manifest; accesses the disk once per folder and once per file.

    A corpus may come from anywhere, so its rows must not name files outside its folder. Links may lead there, since
    they were made on this machine, unless `allow_links` is False. Works on text: with pathlib, 100 000 rows took twice
    as long.
    """

    def __init__(self, root: Path, allow_links: bool | None = None) -> None:
        self.root = str(root)
        self.inside = os.path.join(os.path.realpath(root), "")
        self.allow_links = allow_links
        self.problems = cache(self._problems)
        self._real_folder = cache(os.path.realpath)

    def _problems(self, path: str) -> list[str]:
        """Return nothing, or one sentence. `path` is relative to the corpus folder."""
        if os.path.isabs(path) or ".." in path.replace("\\", "/").split("/"):
            return [f"path '{path}' leads out of the corpus folder; it must be relative to {self.root}"]
        try:
            real, exists = self._resolve(path)
        except ValueError:  # a NUL character
            return [f"path {path!r} is not a valid file name"]
        if self.allow_links is False and not real.startswith(self.inside):
            return [
                f"path '{path}' leads out of the corpus folder, by a link to {real}; copy the audio into the folder, "
                "or leave -o corpus.allow_links=false out"
            ]
        if exists:
            return []
        full = os.path.join(self.root, path)
        if os.path.islink(full):
            return [f"no such file: {full} is a link to {os.readlink(full)}, which leads to none"]
        return [f"no such file: {full}"]

    def _resolve(self, path: str) -> tuple[str, bool]:
        """Return the path with links resolved, and whether that file exists."""
        folder, name = os.path.split(path)
        real = os.path.join(self._real_folder(os.path.join(self.root, folder)), name)
        try:
            mode = os.lstat(real).st_mode
        except OSError:
            return real, False
        if stat.S_ISLNK(mode):
            real = os.path.realpath(real)
            return real, os.path.isfile(real)
        return real, stat.S_ISREG(mode)
