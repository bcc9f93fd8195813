"""The state of a run's inputs by names, sizes and times of files: no file is opened, and torch is not imported."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import upstreams
from superb_eval.results import code_versions
from superb_eval.version import __version__

MAX_FILES = 20_000
"""Files next to a user's encoder that are compared; where there are more, its runs are always opened."""

NOT_INPUTS = (".pyc", ".log", ".md", ".html", ".pdf", ".png", ".svg", ".wav", ".flac", ".mp3", ".ogg", ".opus")
"""Suffixes of files next to an encoder that it isn't made from."""


def clear_cache() -> None:
    """Read the states of files anew from now on."""
    file_state.cache_clear()
    _folder_state.cache_clear()


def code_state(task: str) -> str:
    """Return the versions of the code that a task's figures depend on, and the state of the sources of upstreams.

    An upstream's version is known only once torch is imported, so its sources stand for it here: where they changed,
    runs are opened, and the exact identity decides.
    """
    sources = Path(next(iter(upstreams.__path__)))
    return f"{__version__}, {code_versions.versions(task)}, {file_state(sources)}"


def upstream_state(address: str, excluded: Sequence[Path]) -> str:
    """Return the state of the files that an upstream's address names.

    For `FILE.py:Class` all files of its folder count, since it may import or read any of them, except `excluded`
    folders, such as results.
    """
    head, _, checkpoint = address.partition("@")
    file, _, last = head.rpartition(":")
    parts = [file_state(Path(name)) for name in (file, last, checkpoint) if name and Path(name).exists()]
    if file.endswith(".py") and Path(file).is_file():
        parts.append(_folder_state(Path(file), tuple(path.resolve() for path in excluded)))
    return " ".join(parts)


@cache
def file_state(path: Path) -> str:
    """Return a digest of the names, sizes and times of a file, or of all files of a folder; empty without any.

    Links are followed: what counts is the file that is read. The inode's change time counts too, which no program can
    set back.
    """
    if path.is_file():
        return _stamp(str(path))
    digest, empty = hashlib.sha256(), True
    for name in _files(str(path)):
        empty = False
        if not name.endswith(".pyc"):
            digest.update(f"{name}|{_stamp(name)}\n".encode(errors="surrogateescape"))
    return "" if empty else digest.hexdigest()


@cache
def _folder_state(file: Path, excluded: tuple[Path, ...]) -> str:
    """Return the state of the folder of a user's encoder."""
    digest = hashlib.sha256()
    for count, name in enumerate(_files(str(file.parent), code_only=True, excluded=excluded)):
        if count == MAX_FILES:
            return uuid.uuid4().hex  # too many to compare: equal to no earlier state
        if not name.endswith(NOT_INPUTS):
            digest.update(f"{name}|{_stamp(name)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(root: str, code_only: bool = False, excluded: Sequence[Path] = ()) -> Iterator[str]:
    """Yield the files of a folder and its subfolders, each folder once, since links may be cyclic.

    `code_only` leaves out hidden folders, caches and virtual environments; `excluded` folders are left out too.
    """
    folders, seen = [root], set()
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(folder)
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in seen or (folder != root and code_only and _is_skipped(folder, excluded)):
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.is_dir():
                folders.append(entry.path)
            else:
                yield entry.path


def _is_skipped(folder: str, excluded: Sequence[Path]) -> bool:
    path = Path(folder)
    return path.name.startswith((".", "__pycache__")) or (path / "pyvenv.cfg").is_file() or path.resolve() in excluded


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return "missing"  # a dangling link: its file's return is a change
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
