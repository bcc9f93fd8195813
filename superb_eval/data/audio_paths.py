"""Checks of the audio paths that a table names."""

from __future__ import annotations

import os
import stat
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path

MANY = 1_000
"""Files that are looked up in a folder one by one before it is listed, which takes a fourth of the time for each."""


class AudioPaths:
    """Checks the audio paths in a manifest; accesses the disk once per folder and once per file.

    A corpus may come from anywhere, so its rows must not name files outside its folder. Links may lead there, since
    they were made on this machine, unless `allow_links` is False. A folder of which many files are asked for is listed.
    Works on text: with pathlib, 100 000 rows took twice as long.
    """

    def __init__(self, root: Path, allow_links: bool | None = None) -> None:
        self.root = str(root)
        self.inside = os.path.join(os.path.realpath(root), "")
        self.allow_links = allow_links
        self.problems = lru_cache(maxsize=2**16)(self._problems)
        self._real_folder = cache(lambda folder: os.path.realpath(os.path.join(self.root, folder)))
        self._regular_files = cache(_regular_files)
        self._asked: Counter[str] = Counter()

    def _problems(self, path: str) -> list[str]:
        """Return nothing, or one sentence. `path` is relative to the corpus folder."""
        if os.path.isabs(path) or ".." in path.replace("\\", "/").split("/"):
            return [f"path '{path}' leads out of the corpus folder; it must be relative to {self.root}"]
        try:
            real, exists = self._resolve(path)
        except ValueError:  # a NUL character
            return [f"path {path!r} is not a valid file name"]
        if self.allow_links is False and not real.startswith(self.inside):
            return [
                f"path '{path}' leads out of the corpus folder, by a link to {real}; copy the audio into the folder, "
                "or leave -o corpus.allow_links=false out"
            ]
        if exists:
            return []
        full = os.path.join(self.root, path)
        if os.path.islink(full):
            return [f"no such file: {full} is a link to {os.readlink(full)}, which leads to none"]
        return [f"no such file: {full}"]

    def _resolve(self, path: str) -> tuple[str, bool]:
        """Return the path with links resolved, and whether that file exists."""
        folder, name = os.path.split(path)
        real_folder = self._real_folder(folder)
        real = os.path.join(real_folder, name)
        self._asked[real_folder] += 1
        if self._asked[real_folder] > MANY and name in self._regular_files(real_folder):
            return real, True
        try:
            mode = os.lstat(real).st_mode
        except OSError:
            return real, False
        if stat.S_ISLNK(mode):
            real = os.path.realpath(real)
            return real, os.path.isfile(real)
        return real, stat.S_ISREG(mode)


def _regular_files(folder: str) -> frozenset[str]:
    """Return the names of a folder's regular files; none where it can't be listed."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
    except OSError:
        return frozenset()
