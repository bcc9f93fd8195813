"""The feature store: a folder of content-addressed shards that processes share.

A shard holds the features of up to a few hundred utterances and is named by a hash of all that they depend on: the
upstream's fingerprint, the settings and version of the extraction, and the audio. So a shard is never out of date.
Shards are written under a lock, whole or not at all, and checked when read.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from superb_eval.errors import UserError
from superb_eval.features.budget import budget_bytes
from superb_eval.runtime import allocator, atomic_files, locks, outside_files, safetensors_io, user_cache

_NAME = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}\.safetensors")
"""The path of a shard in its store."""

MADE_ON, UPSTREAM = "made_on", "upstream"
"""Keys of a shard's header: device and precision of the extraction, and the upstream's name."""


@dataclass(frozen=True)
class Shard:
    """The content of a shard: tensors (memory-mapped), and its header (`MADE_ON`, `UPSTREAM`)."""

    tensors: dict[str, Tensor]
    header: dict[str, str]

    def holds(self, utterances: int) -> bool:
        """Return whether it has the features of so many utterances: `values`, and `lengths` where they are frames."""
        values, lengths = self.tensors.get("values"), self.tensors.get("lengths")
        if values is None or values.ndim != 3 or not values.is_floating_point() or MADE_ON not in self.header:
            return False
        if lengths is None:
            return len(values) == utterances
        if lengths.dtype != torch.int64 or lengths.shape != (utterances,):
            return False
        return int(lengths.min()) > 0 and int(lengths.sum()) == len(values)


@dataclass(frozen=True)
class _StoredShard:
    """A shard on the disk: its size in bytes, when it was last used (seconds since 1970), and who may delete it."""

    path: Path
    size: int
    used: float
    deletable: bool


def default_folder() -> Path:
    """Return `$SUPERB_EVAL_STORE`, or a folder of the user's cache.

    Raises:
        UserError: see `user_cache.CacheFolder.path`.
    """
    return user_cache.FEATURES.path()


class Store:
    """A folder of shards within a size budget; the least recently used ones are deleted for new ones.

    Only shards count, and only they are deleted: files by the name of one, with a header as `write` makes it. Nothing
    else in the folder is touched. A store that may only be read is read; what isn't in it can't be extracted.
    """

    def __init__(self, folder: Path | None = None, budget_gb: float | None = None) -> None:
        """Open a store with the budget of `superb_eval.features.budget`.

        Raises:
            UserError: the budget is no number of gigabytes above 0, or see `default_folder`.
        """
        self.folder = folder or default_folder()
        self.budget = budget_bytes(budget_gb)
        self.in_use: set[Path] = set()
        self._marked: dict[Path, bool] = {}
        """Which files were found to have the header of a shard."""

    def address(self, *parts: str) -> Path:
        """Return the path of the shard that depends on `parts`."""
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def lock(self, path: Path) -> AbstractContextManager[None]:
        """Return the lock under which one process extracts a shard while the others wait for it.

        Raises:
            UserError: the folder may only be read; on entering: see `superb_eval.runtime.locks.hold`.
        """
        lock = path.with_suffix(".lock")
        refused = [each for each in (lock, lock.parent) if not os.access(user_cache.nearest_existing(each), os.W_OK)]
        if refused:
            raise UserError(
                f"{self.folder}: lacks features of this run, and you may not write {refused[0]}. Choose another folder "
                "with --store, or let its owner share it (a group's folder with setgid, written with umask 002)."
            )
        return locks.hold(lock)

    def read(self, path: Path, utterances: int) -> Shard | None:
        """Return the shard of so many utterances, or None where there is none, or with a warning a damaged one.

        No lock is needed: a shard is written whole, and a damaged one stays until `write` replaces it.

        Raises:
            UserError: it may not be read.
        """
        if not path.is_file():
            return None
        outside_files.check_regular(path)
        try:
            shard = Shard(*safetensors_io.read(path))
        except safetensors_io.DamagedError as error:
            warnings.warn(f"{path}: damaged ({error}); its features are extracted again", stacklevel=2)
            return None
        if not shard.holds(utterances):
            warnings.warn(f"{path}: no features of {utterances} utterances; they are extracted again", stacklevel=2)
            return None
        with suppress(OSError):  # another user's shard: it counts as last used when it was written
            os.utime(path)
        self.in_use.add(path)
        return shard

    def write(self, path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> Shard:
        """Write a shard atomically; return it memory-mapped.

        Raises:
            UserError: the disk is full, or this run alone needs more than the budget.
        """
        if os.path.lexists(path) and not path.is_file():
            raise UserError(f"{path}: is a folder, a pipe or a broken link where a shard belongs. Remove it.")
        self._make_room(sum(t.nbytes for t in tensors.values()))
        self.in_use.add(path)
        self._marked[path] = True
        safetensors_io.write(path, tensors, header)
        # From the file, so that a long extraction doesn't fill memory; what was just written needs no check.
        allocator.trim()
        return Shard(*safetensors_io.read_unchecked(path))

    def require_budget(self, needed: float) -> None:
        """Refuse features of one run that the budget is too small for, before any shard is deleted for them.

        Raises:
            UserError: they need more bytes.
        """
        if needed > self.budget:
            raise self._too_small(needed)

    def has_room(self, needed: float) -> bool:
        """Return whether so many more bytes fit the budget and the disk, once shards of other runs are deleted."""
        over_budget, over_disk, others = self._balance(needed)
        return max(over_budget, over_disk) <= sum(shard.size for shard in others)

    def _make_room(self, needed: int) -> None:
        """Delete the least recently used shards of other runs, as far as so many bytes need it.

        Raises:
            UserError: the budget is too small even so; nothing was deleted.
        """
        over_budget, over_disk, others = self._balance(needed)
        deletable = sum(shard.size for shard in others)
        if over_budget > deletable:
            raise self._too_small(self.budget + over_budget - deletable)
        if over_disk > deletable:
            return  # the write reports that the disk is full; no shard is lost for that
        freed = 0
        for shard in sorted(others, key=lambda shard: shard.used):
            if freed >= max(over_budget, over_disk):
                return
            shard.path.unlink(missing_ok=True)
            freed += shard.size

    def _balance(self, needed: float) -> tuple[float, float, list[_StoredShard]]:
        """Return what budget and disk lack for so many more bytes, and the shards that may be deleted for them."""
        with atomic_files.explain_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        shards = list(self._shards())
        others = [shard for shard in shards if shard.deletable and shard.path not in self.in_use]
        return sum(shard.size for shard in shards) + needed - self.budget, needed - free, others

    def _too_small(self, needed: float) -> UserError:
        return UserError(
            f"{self.folder}: this run's features need {needed / 1e9:.2g} GB, more than the budget of "
            f"{self.budget / 1e9:g} GB. Raise it with --store-gb or SUPERB_EVAL_STORE_GB."
        )

    def _shards(self) -> Iterator[_StoredShard]:
        for path in self.folder.glob("*/*.safetensors"):
            with suppress(OSError):  # another process deleted it, or it can't be looked at
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and self._is_shard(path):
                    yield _StoredShard(path, status.st_size, status.st_mtime, os.access(path.parent, os.W_OK))

    def _is_shard(self, path: Path) -> bool:
        """Return whether a file is a shard, by its name and its header: anything else isn't ours to delete."""
        if path not in self._marked:
            name = path.relative_to(self.folder).as_posix()
            self._marked[path] = _NAME.fullmatch(name) is not None and _has_shard_header(path)
        return self._marked[path]


def _has_shard_header(path: Path) -> bool:
    try:
        return {MADE_ON, UPSTREAM} <= safetensors_io.header(path).keys()
    except safetensors_io.DamagedError:
        return False
