"""Output folders: a command writes only into a folder that is new, empty, or its own.

A folder becomes a command's own by a marker, the file `.superb-eval`: JSON with the keys `written_by`, always
"superb-eval", and `kind`, what the folder holds, such as "training". It is written before anything else.
"""

from __future__ import annotations

import json
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files, outside_files

MARKER = ".superb-eval"
"""The file that marks a folder as ours; of a copy or a rename too, since it names no path."""

PROGRAM = "superb-eval"

MOST_BYTES = 1000
"""Of a marker."""

NO_CONTENT = {".DS_Store", "Thumbs.db", "desktop.ini", "lost+found", ".gitignore", ".gitkeep"}
"""What file managers, new disks and git leave in folders that hold nothing."""


def check(folder: Path, kind: str, *, earlier: bool = False) -> None:
    """Refuse a folder that holds anything but our own output of a kind; write nothing.

    Args:
        folder: the output folder; it need not exist.
        kind: what the command writes, such as "training".
        earlier: whether the caller recognises what is there as its own, written by a version that left no marker.

    Raises:
        UserError: naming the first entry that isn't ours, or the kind of output that is there.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file. Name a folder.")
    # Listed before the marker is read: a process beside writes its marker first.
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    there = kind_of(folder)
    if there is not None and there != kind:
        raise UserError(f"{folder}: holds '{there}' by superb-eval, not '{kind}'. Choose another folder.")
    others = [name for name in present if not _is_no_content(name)]
    if there is None and others and not earlier:
        entry = others[0] + ("/" if (folder / others[0]).is_dir() else "")
        raise UserError(f"{folder}: holds {entry}, which this command didn't write. Choose a new folder.")


def claim(folder: Path, kind: str, *, earlier: bool = False) -> None:
    """Make a folder ours, with its parents, after `check`; nothing changes where it is ours already.

    Raises:
        UserError: see `check`; or the disk is full or may not be written.
    """
    check(folder, kind, earlier=earlier)
    with atomic_files.explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    atomic_files.create_text(folder / MARKER, json.dumps({"written_by": PROGRAM, "kind": kind}) + "\n")


def kind_of(folder: Path) -> str | None:
    """Return what our marker in a folder names; None: there is no marker of ours."""
    try:
        content = outside_files.read_json(folder / MARKER, MOST_BYTES)
    except UserError:
        return None
    ours = isinstance(content, dict) and content.get("written_by") == PROGRAM
    return str(content["kind"]) if ours and isinstance(content.get("kind"), str) else None


def _is_no_content(name: str) -> bool:
    """Return whether an entry's name is one of `NO_CONTENT`, or that of a marker while it is being written."""
    return name in NO_CONTENT or name.startswith(f".{MARKER}.")
