"""Audio files of data folders: their endings, and where relative paths to them begin."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

ENDINGS = frozenset(
    {".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".webm", ".aif",
     ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64", ".sph", ".wma"}
)  # fmt: skip
"""Endings of audio files, in lower case. Whether one can be decoded shows when it is read."""


def is_audio(name: str) -> bool:
    """Return whether a file's name ends as those of audio files do; hidden files are none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS


class AudioFinder:
    """Finds the file of a path: relative ones begin in the first of `folders` that holds such a file."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(dict.fromkeys(str(folder) for folder in folders))

    def find(self, path: str) -> Path | None:
        """Return the file, or None where there is none."""
        for folder in self.folders:
            candidate = os.path.join(folder, path)
            if "\0" not in path and os.path.isfile(candidate):
                return Path(candidate)
        return None

    def problem(self, path: str) -> str:
        """Return the sentence on a path that leads to no file."""
        if os.path.isabs(path):
            return f"no such file: {path}"
        return f"no such file: '{path}' is in none of {', '.join(self.folders)}"


def near_folders(folder: Path, root: Path) -> list[Path]:
    """Return where relative paths of a table in `folder` may begin: there, up to two folders above, or here.

    Kaldi's and Lhotse's own begin in the directory from which a recipe is run, such as that above `data/train`.
    """
    above = root.resolve().parent
    return [folder, root, above, above.parent, Path.cwd()]
