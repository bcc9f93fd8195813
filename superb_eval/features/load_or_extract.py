"""The features of a corpus: read from the store, extracted where they are missing, and live where there is no room.

The first shard tells how long the upstream takes, how many bytes that gives and how fast the disk is. Means over time
are small and always stored. Frames are stored where that takes less time than to compute them at each pass of the
training, as long as budget and disk last; what is left is computed whenever a batch asks for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from superb_eval.data.audio import Clip
from superb_eval.features.dataset import FeatureDataset, Place
from superb_eval.features.extract import VERSION, Extraction, extract
from superb_eval.features.store import Shard, Store
from upstreams.base import Upstream
from upstreams.loading import earlier_fingerprints

SHARD_UTTERANCES = 128
"""Aimed at. A killed extraction loses one shard's work at most; a shard has to fit in memory."""

OnProgress = Callable[[int], None]
"""Called with the number of utterances done."""


@dataclass(frozen=True)
class FeatureSource:
    """What features are made with: an upstream, its fingerprint, the settings, and the device it runs on."""

    upstream: Upstream
    fingerprint: str
    how: Extraction
    device: str


@dataclass(frozen=True)
class Rates:
    """What the first shard told: bytes per clip, and seconds per clip to compute them and to write them."""

    size: float
    compute: float
    write: float

    def worth_storing(self, passes: float) -> bool:
        """Whether clips that are heard so many times are sooner stored; reading takes as long as writing at most."""
        return self.compute + self.write + passes * self.write < passes * self.compute


def load_or_extract(
    source: FeatureSource, clip_of: Mapping[str, Clip], store: Store, progress: OnProgress, passes: float | None = None
) -> FeatureDataset:
    """Return the features of clips, given by their `audio.digest`.

    Clips are dealt into shards by digest, so that a clip more or less in a corpus changes one shard. `passes` says how
    many times a training hears each clip; None: everything has to be stored.

    Raises:
        UserError: see `extract` and `Store.write`.
    """
    return _Gathering(source, clip_of, store, passes).run(progress)


class _Gathering:
    def __init__(self, source: FeatureSource, clip_of: Mapping[str, Clip], store: Store, passes: float | None) -> None:
        self.source, self.clip_of, self.store = source, clip_of, store
        self.passes = None if source.how.kind == "pooled" else passes
        self.places: dict[str, Place] = {}
        self.shards: list[Tensor] = []
        self.unstored: set[str] = set()
        self.extracted, self.made_on = 0, set[str]()
        self.shape: tuple[int, int] = (0, 0)
        self.rates: Rates | None = None
        # Batches are fetched ahead while others are evaluated: where passes get in each other's way, one at a time.
        self.turns: AbstractContextManager[Any] = nullcontext() if source.upstream.reentrant else Lock()

    def run(self, progress: OnProgress) -> FeatureDataset:
        """Go through all shards."""
        for hand in _deal(sorted(self.clip_of)):
            source = self.source
            path, *earlier = (
                self.store.address(str(VERSION), fingerprint, source.how.describe(), *hand)
                for fingerprint in (source.fingerprint, *earlier_fingerprints.earlier(source.fingerprint))
            )
            with self.store.lock(path):
                shard = next(filter(None, map(self.store.read, (path, *earlier))), None) or self._made(path, hand)
            if shard is None:
                self.unstored.update(hand)
            else:
                self._take(hand, shard)
            progress(len(self.places) + len(self.unstored))
        about = ", ".join(sorted(self.made_on or {_about(self.source)["made_on"]}))
        return FeatureDataset(
            pooled=self.source.how.kind == "pooled",
            layers=self.shape[0],
            dim=self.shape[1],
            shards=self.shards,
            places=self.places,
            extracted=self.extracted,
            made_on=about,
            live=self._live if self.unstored else None,
            unstored=frozenset(self.unstored),
        )

    def _made(self, path: Path, hand: Sequence[str]) -> Shard | None:
        """Extract a shard and store it; None where it is not to be stored."""
        if self.passes is not None and self.rates and not self._stores(self.rates.size * len(hand)):
            return None
        began = time.perf_counter()
        tensors = _make(self.source, [self.clip_of[digest] for digest in hand])
        made = time.perf_counter()
        self.shape = tensors["values"].shape[-2], tensors["values"].shape[-1]
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self.passes is not None and not self.store.has_room(size):
            self.rates = Rates(size / len(hand), (made - began) / len(hand), 0.0)
            return None
        shard = self.store.write(path, tensors, _about(self.source))
        self.rates = Rates(size / len(hand), (made - began) / len(hand), (time.perf_counter() - made) / len(hand))
        self.extracted += len(hand)
        return shard

    def _stores(self, size: float) -> bool:
        assert self.rates is not None  # noqa: S101 - asked before
        assert self.passes is not None  # noqa: S101
        return self.rates.worth_storing(self.passes) and self.store.has_room(size)

    def _take(self, hand: Sequence[str], shard: Shard) -> None:
        values, number, first = shard.tensors["values"], len(self.shards), 0
        lengths = shard.tensors["lengths"].tolist() if "lengths" in shard.tensors else [1] * len(hand)
        for digest, length in zip(hand, lengths, strict=True):
            self.places[digest] = Place(number, first, first + length)
            first += length
        self.shards.append(values)
        self.shape = (values.shape[-2], values.shape[-1])
        self.made_on.add(shard.about["made_on"])

    def _live(self, digests: Sequence[str]) -> list[Tensor]:
        source, clips = self.source, [self.clip_of[digest] for digest in digests]
        with self.turns:
            rows = dict(extract(source.upstream, clips, source.how, source.device))
        return [rows[i] for i in range(len(digests))]


def _deal(digests: Sequence[str]) -> list[list[str]]:
    """Deal sorted digests into shards by their leading bits; a power of two of them, so that growth splits shards."""
    bits = max(0, round(math.log2(max(1, len(digests)) / SHARD_UTTERANCES)))
    hands: dict[int, list[str]] = {}
    for digest in digests:
        hands.setdefault(int(digest[:8], 16) >> (32 - bits), []).append(digest)
    return list(hands.values())


def _about(source: FeatureSource) -> dict[str, str]:
    return {"made_on": f"{source.device} {source.how.precision}", "upstream": source.upstream.card.name}


def _make(source: FeatureSource, clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Extract one shard: `values` [utterances, layers, dim], or [frames of all, layers, dim] with `lengths`."""
    rows = dict(extract(source.upstream, clips, source.how, source.device))
    ordered = [rows[i] for i in range(len(clips))]
    if source.how.kind == "pooled":
        return {"values": torch.stack(ordered)}
    return {"values": torch.cat(ordered), "lengths": torch.tensor([len(row) for row in ordered])}
