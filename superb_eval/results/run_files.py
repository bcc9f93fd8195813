"""The files of a run, which somebody else may have written: regular, in the run's own folder, of a bounded size."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

MOST_BYTES = 8 * 2**30
"""Of any file of a run; the largest heads hold some hundred megabytes."""

MOST_IN_TABLES = 256 * 2**20
"""Of a file of predictions, all of which are held at once; those of VoxCeleb1's 37 720 trials hold 3 MB."""


def path_in(folder: Path, name: str) -> Path:
    """Return the path of a file of a run, by the name that its record gives.

    Raises:
        UserError: the name is a path, or the file is a link to one outside the folder of the run.
    """
    if Path(name).name != name:
        raise UserError(f"{folder}: its record names {name[:200]!r}, which is no file of a run.")
    path = folder / name
    if path.is_symlink() and os.path.dirname(os.path.realpath(path)) != os.path.realpath(folder):
        raise UserError(f"{path}: is a link that leads out of the folder of the run. Copy the file itself there.")
    return path


def open_file(folder: Path, name: str, most: int = MOST_BYTES) -> BinaryIO:
    """Open a file of a run.

    Raises:
        UserError: see `path_in` and `outside_files.open_regular`.
    """
    return outside_files.open_regular(path_in(folder, name), most)


def read_bytes(folder: Path, name: str) -> bytes:
    """Return the bytes of a small file of a run, such as its record.

    Raises:
        UserError: see `path_in` and `outside_files.read_bytes`.
    """
    return outside_files.read_bytes(path_in(folder, name))


def exists(folder: Path, name: str) -> bool:
    """Return whether a run's folder has an entry of that name, whatever it is."""
    return os.path.lexists(folder / name)


def sha256(folder: Path, name: str) -> str:
    """Return the SHA-256 of a file of a run.

    Raises:
        UserError: see `open_file`.
    """
    with open_file(folder, name) as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
