"""Writes the audio files that lie as bytes in tables (Parquet, Arrow), each in its own format, a batch at a time."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from superb_eval.data.importers.hf_tables import open_table
from superb_eval.data.importers.source import TableAudio
from superb_eval.runtime import atomic_files

_ENDINGS = (
    (rb"RIFF....WAVE|RF64....WAVE", ".wav"),
    (rb"fLaC", ".flac"),
    (rb"OggS", ".ogg"),
    (rb"ID3|\xff[\xe2-\xff]", ".mp3"),
    (rb"....ftyp", ".m4a"),
    (rb"\x1aE\xdf\xa3", ".webm"),
    (rb"FORM....AIF", ".aiff"),
)
"""How files of a format begin, for tables that state no names."""

UNKNOWN_ENDING = ".audio"

AT_A_TIME = 16
"""Files in memory, and being written: one may be an hour long."""


def write_table_audio(
    items: Sequence[TableAudio], root: Path, out: Path, folder: str, update: Callable[[int], object]
) -> dict[TableAudio, str]:
    """Write the audio of `items` beneath `out/folder`; return each one's path, relative to `out`.

    Files keep their names where these are unique in the table; `root` is the source's folder. A file that is there is
    not written again. An item without bytes is left out.

    Raises:
        UserError: a table can't be read, or the disk is full.
    """
    paths: dict[TableAudio, str] = {}
    tables: dict[tuple[Path, str], list[TableAudio]] = defaultdict(list)
    for item in items:
        tables[item.table, item.column].append(item)
    # Most of the time is spent waiting for the disk to confirm each file.
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for (table, _), wanted in tables.items():
            below = f"{folder}/{table.relative_to(root).with_suffix('').as_posix()}"
            names = Counter(_base_name(item) for item in wanted)
            for batch in _batches(wanted):
                new = {item: f"{below}/{_file_name(item, names, content)}" for item, content in batch.items()}
                list(pool.map(_write, (out / path for path in new.values()), batch.values()))
                paths |= new
                update(len(paths))
    return paths


def _write(path: Path, content: bytes) -> None:
    if not path.is_file():
        atomic_files.write_bytes(path, content)


def _batches(items: Sequence[TableAudio]) -> Iterator[dict[TableAudio, bytes]]:
    """Yield the bytes of items of one column of one table, some rows at a time; items without bytes are left out."""
    by_row = {item.row: item for item in items}
    first = 0
    with open_table(items[0].table) as table:
        for batch in table.batches([f"{items[0].column}.bytes"], AT_A_TIME):
            cells = batch.column(0).field("bytes")
            contents = {by_row[row]: cells[row - first].as_py() for row in _within(by_row, first, batch.num_rows)}
            yield {item: content for item, content in contents.items() if content}
            first += batch.num_rows


def _within(rows: Iterable[int], first: int, count: int) -> list[int]:
    return [row for row in range(first, first + count) if row in rows]


def _file_name(item: TableAudio, names: Counter[str], content: bytes) -> str:
    name = _base_name(item)
    stem, ending = os.path.splitext(name)
    if not ending:
        ending = next((end for start, end in _ENDINGS if re.match(start, content, re.DOTALL)), UNKNOWN_ENDING)
    return f"{stem}{ending}" if stem and names[name] == 1 else f"{item.row:08d}{'-' if stem else ''}{stem}{ending}"


def _base_name(item: TableAudio) -> str:
    """Return an item's file name without folders and without what no file system holds."""
    return re.sub(r"[\x00-\x1f]", "", re.split(r"[/\\]", item.name)[-1]).strip()
