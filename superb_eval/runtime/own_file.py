"""Output files: a command writes over its own earlier output, and over nothing else."""

from __future__ import annotations

import os
import re
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

LOOKED_AT = 2**14
"""Bytes at the beginning of a file, where our outputs have their mark."""


def check(path: Path, mark: re.Pattern[bytes], kind: str) -> Path:
    """Refuse to write over a file that holds something else; a new or empty file, a device and a pipe are accepted.

    A link is followed and stays: it may be how a page of the web, or another folder, finds the newest file.

    Args:
        path: the output file.
        mark: what the beginning of our own output matches.
        kind: what the output is called in the message, such as "report".

    Returns:
        The file to write.

    Raises:
        UserError: it is a folder, a circle of links, or a file without the mark, or what lies above it is no folder.
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():
        raise UserError(f"{path}: its links lead in a circle. Name the file itself.")
    _check(target, mark, kind)
    return target


def _check(path: Path, mark: re.Pattern[bytes], kind: str) -> None:
    if path.is_dir():
        raise UserError(f"{path}: is a folder. Name a file in it.")
    above = next((folder for folder in path.parents if folder.exists()), path.parent)
    if not above.is_dir():
        raise UserError(f"{path}: {above} is no folder. Name a file in a folder.")
    if not path.is_file():
        return
    with outside_files.open_regular(path) as file:
        beginning = file.read(LOOKED_AT)
    if beginning and not mark.search(beginning):
        raise UserError(f"{path}: holds something else than a {kind} of superb-eval. Name another file, or remove it.")
