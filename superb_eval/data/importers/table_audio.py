"""The bytes of audio files that lie in tables."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

from superb_eval.data.importers.audio_files import is_audio
from superb_eval.data.importers.hf_tables import open_table
from superb_eval.data.importers.source import TableAudio
from superb_eval.errors import UserError

ROWS = 8
"""Files in memory at a time."""

_MAGIC = (
    (b"RIFF", ".wav"),
    (b"RF64", ".wav"),
    (b"fLaC", ".flac"),
    (b"OggS", ".ogg"),
    (b"ID3", ".mp3"),
    (b"\xff\xfb", ".mp3"),
    (b"\xff\xf3", ".mp3"),
    (b"FORM", ".aiff"),
    (b".snd", ".au"),
)
"""How files of a format begin."""


def contents(audios: Iterable[TableAudio]) -> Iterator[tuple[TableAudio, bytes]]:
    """Yield each with its file's bytes, table after table in the order of their rows: each table is read once.

    Raises:
        UserError: a table can't be read, or a row holds no bytes.
    """
    tables: dict[tuple[Path, str], dict[int, TableAudio]] = {}
    for audio in audios:
        tables.setdefault((audio.table, audio.column), {})[audio.row] = audio
    for (path, column), wanted in tables.items():
        for row, content in _cells(path, column, wanted.keys()):
            if not content:
                raise UserError(f"{path}: row {row + 1} holds no audio in {column}. Leave the row out.")
            yield wanted[row], content


def _cells(path: Path, column: str, wanted: Iterable[int]) -> Iterator[tuple[int, bytes | None]]:
    rows = set(wanted)
    first, last = 0, max(rows)
    with open_table(path) as table:
        for batch in table.batches([f"{column}.bytes"], ROWS):
            cells = batch.column(0).field("bytes")
            for place in range(len(cells)):
                if first + place in rows:
                    yield first + place, cells[place].as_py()
            first += len(cells)
            if first > last:
                return


def file_name(audio: TableAudio, content: bytes) -> str:
    """Return the file's own name, with the ending of its format where it has none.

    Raises:
        UserError: it has none, and its bytes are of no format that is known.
    """
    name = posixpath.basename(audio.name.replace("\\", "/")).lstrip(".") or f"{audio.row + 1:06d}"
    if is_audio(name):
        return name
    ending = next((ending for magic, ending in _MAGIC if content.startswith(magic)), None)
    if ending is None:
        raise UserError(
            f"{audio.table}: row {audio.row + 1} ({name}) is audio of no format that is known. Leave the row out."
        )
    return name + ending
