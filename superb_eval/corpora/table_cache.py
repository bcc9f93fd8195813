"""Files of audio that lies in tables, written once into the user's cache: a clip is a segment of a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from superb_eval.corpora import embedded
from superb_eval.corpora.building.table_audio import write_table_audio
from superb_eval.data.importers.source import SourceCorpus, TableAudio
from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files, outside_files
from superb_eval.runtime.progress import Progress

LIST = "files.json"
"""The list of a folder's files, written last: without it the folder is unfinished, and is resumed."""


def table_files(source: SourceCorpus, progress: Progress) -> dict[TableAudio, Path]:
    """Return the file of every row whose audio lies in a table; write those that are missing.

    Files lie beside the embedded corpora, in a folder that is named by a digest of the tables' bytes: copies of a data
    set share it, and a changed one has another.

    Raises:
        UserError: a table can't be read, a row holds no audio, or the disk is full.
    """
    audios = [row.audio for rows in source.splits.values() for row in rows if isinstance(row.audio, TableAudio)]
    if not audios:
        return {}
    folder = embedded.cache_folder() / f"tables-{_digest(source.root, audios, progress)}"
    listed = _listed(folder)
    if listed is None:
        with progress.step("writing audio", len(audios)) as update:
            paths = write_table_audio(audios, source.root, folder, "audio", update)
        missing = [audio for audio in audios if audio not in paths]
        if missing:
            first = missing[0]
            raise UserError(f"{first.table}: {len(missing)} row(s) hold no audio, such as row {first.row + 1}.")
        listed = {_key(source.root, audio): path for audio, path in paths.items()}
        atomic_files.write_text(folder / LIST, json.dumps(listed))
    return {audio: folder / listed[_key(source.root, audio)] for audio in audios}


def _listed(folder: Path) -> dict[str, str] | None:
    """Return the finished folder's files; None where it is unfinished, or a file of it was removed."""
    path = folder / LIST
    if not path.is_file():
        return None
    listed: dict[str, str] = outside_files.read_json(path)
    return listed if all((folder / name).is_file() for name in listed.values()) else None


def _key(root: Path, audio: TableAudio) -> str:
    return f"{audio.table.relative_to(root).as_posix()} {audio.column} {audio.row}"


def _digest(root: Path, audios: Sequence[TableAudio], progress: Progress) -> str:
    """Return a digest of the names and bytes of the tables."""
    tables = sorted({audio.table for audio in audios})
    digest = hashlib.sha256()
    with progress.step("reading tables", len(tables)) as update:
        for done, table in enumerate(tables, start=1):
            digest.update(f"{table.relative_to(root).as_posix()} {atomic_files.sha256(table)}\n".encode())
            update(done)
    return digest.hexdigest()[:20]
