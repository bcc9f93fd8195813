"""Tables in CSV or Parquet as columns of text with the line numbers of their rows."""

from __future__ import annotations

import codecs
import csv
import gc
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

MAX_BYTES = 2**31 - 1
"""Bytes of a table's file, and of the text of its cells."""

MAX_ROWS = 10_000_000
MAX_COLUMNS = 10_000

MAX_LINE = 16 * 2**20
"""Bytes of a line, which is held in memory whole: wider than `MAX_COLUMNS` names of a thousand letters."""

MAX_CELL = 131_072
"""Characters of a cell: as many as the standard library's reader of CSV takes."""

BATCH = 1_000
"""Rows that are held as Python's strings at a time; with more of them the processor's cache is too small."""

Batch = tuple[NDArray[np.int64], list[list[str]]]
"""The numbers of some rows, and their cells."""

_LINE_BREAK = re.compile("\r\n|\r|\n")


@dataclass(frozen=True)
class Table:
    """Cells as text without surrounding spaces, by column: in Arrow a million short ones need 15 MB, not 60.

    `cells[k]`, a `pyarrow.StringArray`, belongs to `columns[k]`; `row_numbers[i]` to row i. In CSV that is the line on
    which the row begins (1: the header), in Parquet the number of the row (from 1). `uneven` are the rows, by their
    index, that hold more or fewer cells than there are columns; in `cells` they are cut or filled with empty ones.
    """

    columns: list[str]
    cells: list[Any]
    row_numbers: NDArray[np.int64]
    uneven: dict[int, list[str]]

    def __len__(self) -> int:
        return len(self.row_numbers)

    def rows(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, list[str]]]:
        """Yield the number and the cells of the rows from index `first` to before `last`, as wide as in the file."""
        last = len(self) if last is None else last
        for start in range(first, last, BATCH):
            size = min(BATCH, last - start)
            numbers = self.row_numbers[start : start + size].tolist()
            columns = [column.slice(start, size).to_pylist() for column in self.cells]
            for index, (number, *cells) in enumerate(zip(numbers, *columns, strict=True), start):
                yield number, self.uneven.get(index, cells)


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

    CSV is split by the standard library's reader, because those of pandas and Arrow don't report a row's line, and take
    quotes inside a cell and rows of another width for something else. Memory is bounded by the columns: the file is
    read once to check its text, and a second time in batches of rows.

    Raises:
        UserError: the file can't be read as such a table, with the line where there is one, or is larger than the
            bounds of this module.
    """
    try:
        with paused_garbage_collection():
            return _parquet(path) if path.suffix == ".parquet" else _csv(path)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error}). Check that it is complete.") from error


def column_names(path: Path) -> list[str]:
    """Return the names of a table's columns, without reading its rows.

    Raises:
        UserError: as `read`.
    """
    if path.suffix == ".parquet":
        return list(_open_parquet(path).schema_arrow.names)
    with outside_files.open_regular(path, MAX_BYTES) as file:
        return _header(path, _csv_batches(path, file))


def _csv(path: Path) -> Table:
    with outside_files.open_regular(path, MAX_BYTES) as file:
        _check_text(path, file)
        file.seek(0)
        batches = _csv_batches(path, file)
        columns = _header(path, batches)
        return _collect(path, columns, batches)


def _check_text(path: Path, file: BinaryIO) -> None:
    """Refuse a file that isn't UTF-8, or that has a line longer than `MAX_LINE`; the line is named."""
    decoder = codecs.getincrementaldecoder("utf8")()
    lines, since_break = 0, 0
    while block := file.read(2**20):
        _decode(path, decoder, block, lines)
        last_break = block.rfind(b"\n")
        since_break = len(block) - last_break - 1 if last_break >= 0 else since_break + len(block)
        lines += block.count(b"\n")
        if since_break > MAX_LINE:
            raise UserError(f"{path}: line {lines + 1} is longer than {MAX_LINE} bytes. Is it a table?")
    _decode(path, decoder, b"", lines)


def _decode(path: Path, decoder: codecs.IncrementalDecoder, block: bytes, lines: int) -> None:
    """Decode a block, the last where it is empty, after so many whole `lines`."""
    try:
        decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        line = lines + error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise UserError(f"{path}: line {line}: not UTF-8 (byte {byte:#x}). Save it as UTF-8.") from error


def _csv_batches(path: Path, file: BinaryIO) -> Iterator[Batch]:
    """Yield the records but blank lines, with the lines on which they begin: the first alone, then in batches."""
    reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    size = 1
    while True:
        before = reader.line_num
        try:
            records = list(islice(reader, size))
        except csv.Error as error:
            line = before + 1 if size == 1 else _line_of_error(path)
            raise UserError(f"{path}: line {line}: not CSV ({error}). Check the quotes there.") from error
        if not records:
            return
        numbers = _first_lines(records, before, reader.line_num)
        if [] in records:  # blank lines
            numbers = numbers[[bool(record) for record in records]]
            records = list(filter(None, records))
        if records:
            yield numbers, records
            size = BATCH


def _first_lines(records: Sequence[Sequence[str]], before: int, last: int) -> NDArray[np.int64]:
    """Return the line on which each record begins; `before` them and up to the `last` of them so many were read."""
    if last - before == len(records):
        return np.arange(before + 1, last + 1)
    breaks = [sum(len(_LINE_BREAK.findall(cell)) for cell in record) for record in records]
    lines: NDArray[np.int64] = np.cumsum([before + 1, *(count + 1 for count in breaks[:-1])])
    return lines


def _line_of_error(path: Path) -> int:
    """Return the first line of the record that is no CSV, by reading the records one by one."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        line = 1
        with suppress(csv.Error):
            for _ in reader:
                line = reader.line_num + 1
    return line


def _header(path: Path, batches: Iterator[Batch]) -> list[str]:
    """Return the column names, from the first batch."""
    first = next(batches, None)
    if first is None:
        raise UserError(f"{path}: is empty; expected a line of column names such as id,path,speaker, then rows.")
    (line,), (names,) = first
    if len(names) > MAX_COLUMNS:
        raise UserError(f"{path}: line {line}: has {len(names)} columns; at most {MAX_COLUMNS} are read. Drop some.")
    return [name.strip() for name in names]


def _collect(path: Path, columns: list[str], batches: Iterable[Batch]) -> Table:
    """Return the table of these rows; refuse more than `MAX_ROWS` of them, and more than `MAX_BYTES` of text."""
    import pyarrow as pa

    chunks = [[pa.array([], pa.string())] for _ in columns]
    numbers = [np.empty(0, dtype=np.int64)]
    uneven: dict[int, list[str]] = {}
    count = size = 0
    for row_numbers, rows in batches:
        even = _even(rows, len(columns), uneven, count)
        for chunk, cells in zip(chunks, zip(*even, strict=True), strict=True):
            chunk.append(pa.array(list(map(str.strip, cells)), pa.string()))
            size += chunk[-1].nbytes
        numbers.append(row_numbers)
        count += len(rows)
        if count > MAX_ROWS or size > MAX_BYTES:
            raise UserError(f"{path}: holds more than {MAX_ROWS} rows, or {MAX_BYTES} bytes of text. Divide it.")
    return Table(columns, [pa.concat_arrays(chunk) for chunk in chunks], np.concatenate(numbers), uneven)


def _even(rows: list[list[str]], width: int, uneven: dict[int, list[str]], first: int) -> list[list[str]]:
    """Return rows of `width` cells; those of another width are put into `uneven`, and cut or filled.

    `first` is the index of the first of them in the table.
    """
    if all(len(cells) == width for cells in rows):
        return rows
    uneven |= {k: [cell.strip() for cell in cells] for k, cells in enumerate(rows, first) if len(cells) != width}
    return [(cells + [""] * width)[:width] for cells in rows]


def _parquet(path: Path) -> Table:
    file = _open_parquet(path)
    columns = list(file.schema_arrow.names)
    metadata = file.metadata
    size = sum(metadata.row_group(k).total_byte_size for k in range(metadata.num_row_groups))
    if metadata.num_rows > MAX_ROWS or len(columns) > MAX_COLUMNS or size > MAX_BYTES:
        raise UserError(
            f"{path}: holds {metadata.num_rows} rows, {len(columns)} columns and {size} bytes; at most {MAX_ROWS}, "
            f"{MAX_COLUMNS} and {MAX_BYTES} are read. Divide it."
        )
    return _collect(path, columns, _parquet_batches(path, file))


def _open_parquet(path: Path) -> Any:
    """Return a `pyarrow.parquet.ParquetFile` whose text keeps its dictionaries: a cell may stand for many."""
    outside_files.check_regular(path, MAX_BYTES)
    with _explained(path):
        from pyarrow import parquet

        names = [column.path for column in parquet.read_metadata(path).schema]
        return parquet.ParquetFile(path, read_dictionary=names)


def _parquet_batches(path: Path, file: Any) -> Iterator[Batch]:
    count = 0
    with _explained(path):
        for batch in file.iter_batches(batch_size=BATCH):
            texts = map(_texts, repeat(path), batch.schema.names, batch.columns)
            yield np.arange(count + 1, count + len(batch) + 1), list(map(list, zip(*texts, strict=True)))
            count += len(batch)


def _texts(path: Path, name: str, column: Any) -> list[str]:
    """Return the cells of a column as text; a long one is refused before it is repeated for every row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.dictionary if isinstance(column, pa.DictionaryArray) else column
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        longest = pc.max(pc.binary_length(values)).as_py() or 0
        if longest > MAX_CELL:
            raise UserError(f"{path}: column '{name}' holds a cell of {longest} bytes; at most {MAX_CELL} are read.")
    return ["" if cell is None else str(cell) for cell in column.to_pylist()]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the errors of Arrow into one sentence."""
    import pyarrow as pa

    try:
        yield
    except (ValueError, OverflowError, pa.ArrowException) as error:  # text that isn't UTF-8, and dates, too
        raise UserError(f"{path}: can't be read as Parquet ({error}). Check that it is complete.") from error
