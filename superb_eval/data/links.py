"""Links out of a corpus folder: which of its audio files they reach, and whether a file lies in a folder at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path


class CorpusFolder:
    """A folder by its real path; accesses the disk once per folder and once per file."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.join(os.path.abspath(root), "")
        self.inside = os.path.join(os.path.realpath(root), "")
        self._real_folder = cache(os.path.realpath)

    def real_path(self, path: Path) -> str:
        """Return the path of a file with links resolved."""
        folder, name = os.path.split(os.path.abspath(path))
        real = os.path.join(self._real_folder(folder), name)
        return os.path.realpath(real) if os.path.islink(real) else real

    def holds(self, path: Path) -> bool:
        """Return whether a file lies in the folder, links resolved."""
        return self.real_path(path).startswith(self.inside)

    def links_out(self, paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
        """Yield each file that a link reaches outside: its path from the folder, and where it is."""
        for path in paths:
            name = os.path.abspath(path)
            if name.startswith(self.root) and not self.holds(path):
                yield name[len(self.root) :], self.real_path(path)


def files_below(root: Path) -> Iterator[Path]:
    """Yield the files under a folder, following links to folders; each folder is entered once, so loops end."""
    entered: set[str] = set()
    for folder, inside, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:
            inside.clear()
            continue
        entered.add(real)
        inside.sort()
        yield from (Path(folder) / name for name in names)


def describe_links(paths: Iterable[Path], root: Path) -> str:
    """Return a sentence on the files that links reach outside a corpus folder; empty where there are none."""
    files = list(dict.fromkeys(paths))
    out = list(CorpusFolder(root).links_out(files))
    if not out:
        return ""
    name, real = out[0]
    return (
        f"{len(out)} of {len(files)} audio files are links that lead out of the corpus folder, such as {name} -> {real}"
    )
