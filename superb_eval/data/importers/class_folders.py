"""Folders of audio whose names are the labels: `ROOT/CLASS/*.wav`, or `ROOT/SPLIT/CLASS/*.wav`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from superb_eval.data.importers.audio_files import is_audio
from superb_eval.data.importers.columns import split_candidates
from superb_eval.data.importers.source import SourceCorpus, SourceRow
from superb_eval.errors import UserError

KIND = "folder of class folders"

LABEL = "label"
"""The name of the label column: that of Hugging Face's `audiofolder`."""


def split_names(root: Path) -> list[str]:
    """Return the names of the splits, [""] where it is undivided, and [] where `root` isn't such a folder."""
    folders = _folders(root)
    splits = [folder for folder in folders if any(split_candidates([folder.name]).values())]
    divided = [folder.name for folder in splits if _is_divided(folder)]
    if len(divided) > 1:
        return divided
    # Splits that hold audio themselves state no labels.
    classes = len(splits) < len(folders) > 1 and all(_holds_audio(folder) for folder in folders)
    return [""] if classes else []


def read(root: Path, names: Sequence[str], turns: bool) -> SourceCorpus:
    """Return every audio file of the splits `names`, in the order of classes and files; `turns` are never stated.

    An id is the path below the split, without its ending. Speakers are unknown.

    Raises:
        UserError: two files differ in their endings alone.
    """
    del turns
    return SourceCorpus(KIND, root, {name: _split(root, name) for name in names})


def _split(root: Path, name: str) -> tuple[SourceRow, ...]:
    rows: dict[str, SourceRow] = {}
    for folder in _folders(root / name):
        for file in sorted(entry.name for entry in os.scandir(folder) if is_audio(entry.name) and entry.is_file()):
            row_id = f"{folder.name}/{os.path.splitext(file)[0]}"
            path = folder / file
            if row_id in rows:
                raise UserError(
                    f"{path}: {rows[row_id].location} has the same name but for its ending, so both would have the id "
                    f"'{row_id}'. Rename or remove one."
                )
            rows[row_id] = SourceRow(row_id, path, path.relative_to(root).as_posix(), labels={LABEL: folder.name})
    return tuple(rows.values())


def _folders(root: Path) -> list[Path]:
    """Return the folders in a folder, sorted; links to folders are followed, hidden ones left out."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_divided(folder: Path) -> bool:
    inner = _folders(folder)
    return bool(inner) and all(_holds_audio(path) for path in inner)


def _holds_audio(folder: Path) -> bool:
    return any(is_audio(entry.name) for entry in os.scandir(folder))
