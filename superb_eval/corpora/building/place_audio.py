"""Places a source's audio beneath a new corpus, linked or copied, never re-encoded, and reads each clip's duration."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from superb_eval.corpora.building.label_rows import LeftOut
from superb_eval.corpora.building.new_row import NewRow
from superb_eval.corpora.building.table_audio import write_table_audio
from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.data.importers.source import TableAudio
from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files
from superb_eval.runtime.progress import Progress

FOLDER = "audio"
"""The folder of a corpus that holds its audio."""

Mode = Literal["link", "copy"]


def place_audio(
    rows: Sequence[NewRow], root: Path, out: Path, mode: Mode, progress: Progress
) -> tuple[list[NewRow], LeftOut]:
    """Place the audio of rows beneath `out`; return the rows with path and duration, and those that can't be read.

    `root` is the source's folder: files beneath it keep their path. Audio that is there already is left as it is.

    Raises:
        UserError: the disk is full or may not be written.
    """
    embedded = [row.row.audio for row in rows if isinstance(row.row.audio, TableAudio)]
    with progress.step("writing audio", len(embedded)) as update:
        paths = write_table_audio(embedded, root, out, FOLDER, update) if embedded else {}

    def place(new_row: NewRow) -> tuple[NewRow, str]:
        """Return the row with its audio's path and duration, and a sentence where its audio can't be read."""
        row = new_row.row
        try:
            if isinstance(row.audio, TableAudio):
                path = paths.get(row.audio)
                if path is None:
                    raise UserError(f"{row.audio.table}: row {row.audio.row + 1} holds no audio.")
                return replace(new_row, path=path, seconds=audio.seconds(Clip(out / path, row.start, row.end))), ""
            seconds = audio.seconds(Clip(row.audio, row.start, row.end))
        except UserError as error:
            return new_row, f"{row.location}: {error}"
        path = _path_below(row.audio, root)
        _place(row.audio, out / path, mode)
        return replace(new_row, path=path, seconds=seconds), ""

    placed: list[NewRow] = []
    left_out: LeftOut = defaultdict(list)
    # Decoding and copying release Python's lock, so threads share the work.
    with progress.step("placing audio", len(rows)) as update, ThreadPoolExecutor() as pool:
        for done, (row, problem) in enumerate(pool.map(place, rows), start=1):
            if problem:
                short = "too short" in problem
                left_out["shorter than 0.05 s" if short else "whose audio can't be read"].append(problem)
            else:
                placed.append(row)
            update(done)
    return placed, dict(left_out)


def _path_below(path: Path, root: Path) -> str:
    """Return the path of a file in the new corpus: the same as below `root`, else below a digest of its folder."""
    folder, inside = _real(path.parent), os.path.join(_real(root), "")
    if os.path.join(folder, "").startswith(inside):
        below = os.path.join(folder, "")[len(inside) :]
    else:
        below = hashlib.sha256(folder.encode()).hexdigest()[:10] + "/"
    return f"{FOLDER}/{below}{path.name}"


@lru_cache(maxsize=4096)
def _real(folder: Path) -> str:
    return os.path.realpath(folder)


def _place(source: Path, target: Path, mode: Mode) -> None:
    if mode == "copy":
        if not target.is_file() or target.is_symlink():
            atomic_files.write(target, lambda part: shutil.copyfile(source, part))
        return
    with atomic_files.explain_disk_errors(target):
        destination = os.path.join(_real(source.parent), source.name)
        if target.is_symlink() and os.readlink(target) == destination:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.symlink_to(destination)
        except FileExistsError:
            # A segment of the same file was placed by another thread meanwhile, or an earlier command left a file.
            if not target.is_symlink() or os.readlink(target) != destination:
                raise UserError(f"{target}: is there already and is no link to {destination}. Remove it.") from None
