"""The features of a corpus: read from the store, extracted where they are missing, and live where there is no room.

The first shard measures how long the upstream takes, how many bytes that gives and how fast the disk is. Means over
time are small and always stored. Frames are stored where that takes less time than to compute them at each pass of the
training, as long as budget and disk last; the others are live: computed whenever a batch needs them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.features.dataset import FeatureDataset, Place
from superb_eval.features.extract import VERSION, Extraction, check_size, extract
from superb_eval.features.store import MADE_ON, UPSTREAM, Shard, Store
from upstreams.base import Upstream
from upstreams.loading import legacy_fingerprints

SHARD_UTTERANCES = 128
"""Aimed at. A killed extraction loses one shard's work at most; a shard has to fit in memory."""

OnProgress = Callable[[int], None]
"""Called with the number of utterances done."""


@dataclass(frozen=True)
class FeatureSource:
    """What features are made with: an upstream, its fingerprint, the settings, and the device it runs on."""

    upstream: Upstream
    fingerprint: str
    extraction: Extraction
    device: str


@dataclass(frozen=True)
class ClipCosts:
    """Measured on the first shard: bytes per clip, and seconds per clip to compute them and to write them."""

    size: float
    compute: float
    write: float

    def worth_storing(self, passes: float) -> bool:
        """Return whether storing is faster over so many passes; reading takes as long as writing at most."""
        return self.compute + self.write + passes * self.write < passes * self.compute


def load_or_extract(
    source: FeatureSource,
    clip_by_digest: Mapping[str, Clip],
    store: Store,
    on_progress: OnProgress,
    passes: float | None = None,
) -> FeatureDataset:
    """Return the features of clips, given by their `audio.digest`.

    Clips are assigned to shards by digest, so that a clip more or less in a corpus changes one shard. `passes` is how
    many times a training processes each clip; None: everything has to be stored.

    Raises:
        UserError: see `extract` and `Store.write`.
    """
    builder = _DatasetBuilder(source, clip_by_digest, store, passes)
    stored = count_stored(source, clip_by_digest, store)
    *shards, last = _assign_to_shards(sorted(clip_by_digest))
    for digests in shards:
        builder.add(digests)
        on_progress(min(len(clip_by_digest) - len(last), stored + builder.extracted + len(builder.unstored)))
    builder.add(last)
    on_progress(len(clip_by_digest))
    return builder.dataset()


def count_stored(source: FeatureSource, digests: Iterable[str], store: Store) -> int:
    """Return how many of these clips have their features in the store; no shard is opened."""
    shards = _assign_to_shards(sorted(digests))
    return sum(len(shard) for shard in shards if any(path.is_file() for path in _paths(source, shard, store)))


def _paths(source: FeatureSource, digests: Sequence[str], store: Store) -> list[Path]:
    """Return the path of a shard, and those under the upstream's earlier fingerprints."""
    return [
        store.address(str(VERSION), fingerprint, source.extraction.describe(), *digests)
        for fingerprint in (source.fingerprint, *legacy_fingerprints.legacy(source.fingerprint))
    ]


class _DatasetBuilder:
    """Collects the shards of a dataset. `shape` is (layers, dim), known after the first shard."""

    def __init__(
        self, source: FeatureSource, clip_by_digest: Mapping[str, Clip], store: Store, passes: float | None
    ) -> None:
        self.source, self.clip_by_digest, self.store = source, clip_by_digest, store
        self.passes = None if source.extraction.kind == "pooled" else passes
        self.places: dict[str, Place] = {}
        self.shards: list[Tensor] = []
        self.unstored: set[str] = set()
        self.extracted, self.made_on = 0, set[str]()
        self.shape: tuple[int, int] = (0, 0)
        self.costs: ClipCosts | None = None
        # Batches are read ahead while others are evaluated: an upstream that isn't reentrant runs one at a time.
        self.turns: AbstractContextManager[Any] = nullcontext() if source.upstream.reentrant else Lock()

    def add(self, digests: Sequence[str]) -> None:
        """Read or extract one shard, or mark its clips as live."""
        paths = _paths(self.source, digests, self.store)
        shard = self._stored(paths, digests)  # without a lock: others' stores may be read alone
        if shard is None:
            with self.store.lock(paths[0]):
                shard = self._stored(paths, digests) or self._extract_shard(paths[0], digests)
        if shard is None:
            self.unstored.update(digests)
        else:
            self._add_shard(digests, shard)

    def _stored(self, paths: Sequence[Path], digests: Sequence[str]) -> Shard | None:
        return next(filter(None, (self.store.read(path, len(digests)) for path in paths)), None)

    def dataset(self) -> FeatureDataset:
        """Return the features of all clips added."""
        made_on = self.made_on or {_header(self.source)[MADE_ON]}
        return FeatureDataset(
            pooled=self.source.extraction.kind == "pooled",
            layers=self.shape[0],
            dim=self.shape[1],
            shards=self.shards,
            places=self.places,
            extracted=self.extracted,
            made_on=", ".join(sorted(made_on)),
            live=self._extract_live if self.unstored else None,
            unstored=frozenset(self.unstored),
        )

    def _extract_shard(self, path: Path, digests: Sequence[str]) -> Shard | None:
        """Extract a shard and store it; None where it is not to be stored."""
        if self.passes is not None and self.costs is not None:
            needed = self.costs.size * len(digests)
            if not (self.costs.worth_storing(self.passes) and self.store.has_room(needed)):
                return None
        start = time.perf_counter()
        tensors = _extract_tensors(self.source, [self.clip_by_digest[digest] for digest in digests])
        extracted = time.perf_counter()
        self.shape = tensors["values"].shape[-2], tensors["values"].shape[-1]
        size = sum(tensor.nbytes for tensor in tensors.values())
        count = len(digests)
        if self.passes is None:
            self.store.require_budget(size * self._share_of_all(digests))
        elif not self.store.has_room(size):
            self.costs = ClipCosts(size / count, (extracted - start) / count, 0.0)
            return None
        shard = self.store.write(path, tensors, _header(self.source))
        self.costs = ClipCosts(size / count, (extracted - start) / count, (time.perf_counter() - extracted) / count)
        self.extracted += count
        return shard

    def _share_of_all(self, digests: Sequence[str]) -> float:
        """Return how many times the features of a shard those of all clips are, by their number or their seconds."""
        if self.source.extraction.kind == "pooled":
            return len(self.clip_by_digest) / len(digests)
        seconds = {digest: audio.seconds(clip) for digest, clip in self.clip_by_digest.items()}
        return sum(seconds.values()) / sum(seconds[digest] for digest in digests)

    def _add_shard(self, digests: Sequence[str], shard: Shard) -> None:
        values, number, first = shard.tensors["values"], len(self.shards), 0
        if self.shards:
            size, expected = (tuple(tensor.shape[-2:]) for tensor in (values, self.shards[0]))
            check_size(self.source.upstream, size, expected, self.clip_by_digest[digests[0]].path)
        lengths = shard.tensors["lengths"].tolist() if "lengths" in shard.tensors else [1] * len(digests)
        for digest, length in zip(digests, lengths, strict=True):
            self.places[digest] = Place(number, first, first + length)
            first += length
        self.shards.append(values)
        self.shape = (values.shape[-2], values.shape[-1])
        self.made_on.add(shard.header[MADE_ON])

    def _extract_live(self, digests: Sequence[str]) -> list[Tensor]:
        source, clips = self.source, [self.clip_by_digest[digest] for digest in digests]
        with self.turns:
            rows = dict(extract(source.upstream, clips, source.extraction, source.device))
        return [rows[i] for i in range(len(digests))]


def _assign_to_shards(digests: Sequence[str]) -> list[list[str]]:
    """Group sorted digests by their leading bits into a power of two of shards, so that growth splits shards."""
    bits = max(0, round(math.log2(max(1, len(digests)) / SHARD_UTTERANCES)))
    shards: dict[int, list[str]] = {}
    for digest in digests:
        shards.setdefault(int(digest[:8], 16) >> (32 - bits), []).append(digest)
    return list(shards.values())


def _header(source: FeatureSource) -> dict[str, str]:
    return {MADE_ON: f"{source.device} {source.extraction.precision}", UPSTREAM: source.upstream.card.name}


def _extract_tensors(source: FeatureSource, clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Extract one shard: `values` [utterances, layers, dim], or [frames of all, layers, dim] with `lengths`."""
    rows = dict(extract(source.upstream, clips, source.extraction, source.device))
    ordered = [rows[i] for i in range(len(clips))]
    if source.extraction.kind == "pooled":
        return {"values": torch.stack(ordered)}
    return {"values": torch.cat(ordered), "lengths": torch.tensor([len(row) for row in ordered])}
