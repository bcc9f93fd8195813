"""The feature store: a folder of content-addressed shards that processes share.

A shard holds the features of up to a few hundred utterances and is named by a hash of all that they depend on: the
upstream's fingerprint, the settings and version of the extraction, and the audio. So a shard is never out of date.
Shards are written under a lock, whole or not at all, and checked when read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from torch import Tensor

from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files, out_of_memory, safetensors_io

DEFAULT_BUDGET_GB = 50.0


@dataclass(frozen=True)
class Shard:
    """The content of a shard: tensors (memory-mapped), and its header: device, precision, and the upstream's name."""

    tensors: dict[str, Tensor]
    header: dict[str, str]


def default_folder() -> Path:
    """Return `$SUPERB_EVAL_STORE`, or a folder of the user's cache."""
    import platformdirs

    chosen = os.environ.get("SUPERB_EVAL_STORE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("superb-eval")) / "features"


class Store:
    """A folder of shards within a size budget; the least recently used ones are deleted for new ones."""

    def __init__(self, folder: Path | None = None, budget_gb: float | None = None) -> None:
        """Open a store; the budget is `budget_gb`, or `$SUPERB_EVAL_STORE_GB`, or 50 GB (10^9 bytes)."""
        self.folder = folder or default_folder()
        self.budget = 1e9 * (budget_gb or _budget_from_environment())
        self.in_use: set[Path] = set()

    def address(self, *parts: str) -> Path:
        """Return the path of the shard that depends on `parts`."""
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def lock(self, path: Path) -> FileLock:
        """Return the lock under which one process extracts a shard while the others wait for it."""
        with atomic_files.explain_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path.with_suffix(".lock"))

    def read(self, path: Path) -> Shard | None:
        """Return a shard, or None where there is none; a damaged one is deleted with a warning."""
        if not path.is_file():
            return None
        try:
            shard = Shard(*safetensors_io.read(path))
        except safetensors_io.DamagedError as error:
            warnings.warn(f"{path}: damaged ({error}); its features are extracted again", stacklevel=2)
            path.unlink()
            return None
        os.utime(path)
        self.in_use.add(path)
        return shard

    def write(self, path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> Shard:
        """Write a shard atomically; return it memory-mapped.

        Raises:
            UserError: the disk is full, or this run alone needs more than the budget.
        """
        self.in_use.add(path)
        self._make_room(sum(t.nbytes for t in tensors.values()))
        safetensors_io.write(path, tensors, header)
        # From the file, so that a long extraction doesn't fill memory; what was just written needs no check.
        out_of_memory.trim_memory()
        return Shard(*safetensors_io.read_unchecked(path))

    def has_room(self, needed: float) -> bool:
        """Return whether so many more bytes fit the budget and the disk, once shards of other runs are deleted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        others = sum(stat.st_size for path, stat in self._shards() if path not in self.in_use)
        own = sum(path.stat().st_size for path in self.in_use if path.is_file())
        return own + needed <= self.budget and needed <= shutil.disk_usage(self.folder).free + others

    def _make_room(self, needed: int) -> None:
        shards = sorted(self._shards(), key=lambda shard: shard[1].st_mtime)
        used = sum(stat.st_size for _, stat in shards)
        for path, stat in shards:
            if used + needed <= self.budget:
                return
            if path not in self.in_use:
                path.unlink(missing_ok=True)
                used -= stat.st_size
        if used + needed > self.budget:
            raise UserError(
                f"{self.folder}: this run's features need more than the budget of {self.budget / 1e9:g} GB. "
                "Raise it with --store-gb or SUPERB_EVAL_STORE_GB."
            )

    def _shards(self) -> Iterable[tuple[Path, os.stat_result]]:
        for path in self.folder.glob("*/*.safetensors"):
            try:
                yield path, path.stat()
            except FileNotFoundError:  # another process deleted it
                continue


def _budget_from_environment() -> float:
    text = os.environ.get("SUPERB_EVAL_STORE_GB", str(DEFAULT_BUDGET_GB))
    try:
        return float(text)
    except ValueError:
        raise UserError(f"SUPERB_EVAL_STORE_GB is '{text}'; expected a number of gigabytes, such as 50.") from None
