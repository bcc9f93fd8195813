"""What a run is made from, as far as names, sizes and times of files tell: nothing is opened, nothing imports torch."""

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

MOST_FILES = 20_000
"""Files beside a user's encoder that are compared; where there are more, its runs are always opened."""

NO_INPUTS = (".pyc", ".log", ".md", ".html", ".pdf", ".png", ".svg", ".wav", ".flac", ".mp3", ".ogg", ".opus")
"""Endings of files beside an encoder that it isn't made from."""


def forget() -> None:
    """Look at files anew from now on."""
    state.cache_clear()
    _folder_of.cache_clear()


def versions(task: str) -> str:
    """Return the versions of our code that a task's figures depend on, and the state of the sources of upstreams.

    An upstream says its version only once torch is imported, so its sources stand for it here: where they changed, runs
    are opened, and the exact identity decides.
    """
    return f"{__version__}, {code_versions.versions(task)}, {state(Path(next(iter(upstreams.__path__))))}"


def upstream(address: str, others: Sequence[Path]) -> str:
    """Return the state of the files that an upstream's address names.

    Of `FILE.py:Class` all files of its folder count, since it may import or read any of them; but for `others`, folders
    such as results that are known to be none of it.
    """
    head, _, checkpoint = address.partition("@")
    file, _, last = head.rpartition(":")
    parts = [state(Path(name)) for name in (file, last, checkpoint) if name and Path(name).exists()]
    if file.endswith(".py") and Path(file).is_file():
        parts.append(_folder_of(Path(file), tuple(path.resolve() for path in others)))
    return " ".join(parts)


@cache
def state(path: Path) -> str:
    """Return a digest of the names, sizes and times of a file, or of all files of a folder; empty where nothing is.

    Links are followed: what counts is the file that is read. The time of the last change of the inode counts too, which
    no program sets back.
    """
    if path.is_file():
        return _stamp(str(path))
    digest, found = hashlib.sha256(), False
    for name in _files(str(path)):
        found = True
        if not name.endswith(".pyc"):
            digest.update(f"{name}|{_stamp(name)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest() if found else ""


@cache
def _folder_of(file: Path, others: tuple[Path, ...]) -> str:
    """The state of the folder of a user's encoder."""
    digest = hashlib.sha256()
    for count, name in enumerate(_files(str(file.parent), code_only=True, others=others)):
        if count == MOST_FILES:
            return uuid.uuid4().hex  # like none before: too many to say that nothing changed
        if not name.endswith(NO_INPUTS):
            digest.update(f"{name}|{_stamp(name)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(root: str, code_only: bool = False, others: Sequence[Path] = ()) -> Iterator[str]:
    """Yield the files of a folder and of those below it, each folder once: links may lead back.

    `code_only` leaves out hidden folders, caches and environments; `others` are left out too.
    """
    folders, seen = [root], set()
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(folder)
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in seen or (folder != root and code_only and _is_foreign(folder, others)):
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.is_dir():
                folders.append(entry.path)
            else:
                yield entry.path


def _is_foreign(folder: str, others: Sequence[Path]) -> bool:
    path = Path(folder)
    return path.name.startswith((".", "__pycache__")) or (path / "pyvenv.cfg").is_file() or path.resolve() in others


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return "missing"  # a link to nowhere: a file that comes back is a change
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
