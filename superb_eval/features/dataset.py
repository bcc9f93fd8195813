"""The features of a corpus as heads read them: rows of stored shards, or live ones, computed whenever they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from superb_eval.data.padding import copy_to
from superb_eval.runtime import devices, memory

NORM_CLIPS = 256
"""Clips whose features estimate each layer's norm; the first by digest, which is a random choice."""

NORM_LIVE_CLIPS = 8
"""As `NORM_CLIPS`, where no clip is stored."""

DEVICE_SHARE = 0.2
"""Of a GPU's free memory, what the means over time of a split may take there; several runs may share the GPU."""

HOST_BYTES = 64 * 2**20
"""Of a CPU's memory likewise: rows are then chosen by one operation, not read one by one from memory-mapped files."""


@dataclass(frozen=True)
class FeatureBatch:
    """Features of some utterances, `[batch, layers, dim]` pooled or `[batch, frames, layers, dim]` padded.

    `lengths` [batch] counts valid frames; ones where features are pooled. It stays on the host, so that reading it
    waits for no device.
    """

    hidden: Tensor
    lengths: Tensor

    @property
    def pooled(self) -> bool:
        """Whether these are means over time."""
        return self.hidden.dim() == 3

    def part(self, first: int, last: int) -> FeatureBatch:
        """Return the utterances from `first` up to `last`, padded no further than they need.

        A frame of padding is kept where the batch has longer ones, since heads whose training depends on whether an
        utterance is the longest of its batch (ASV, SD) see it by that.
        """
        hidden, lengths = self.hidden[first:last], self.lengths[first:last]
        return FeatureBatch(hidden if self.pooled else hidden[:, : int(lengths.max()) + 1], lengths)

    def to(self, device: torch.device) -> FeatureBatch:
        """Return the batch as float32 on a device; the copy is not waited for where the batch is in pinned memory."""
        return FeatureBatch(copy_to(self.hidden, device).float(), self.lengths)


Crop = Callable[[Tensor], Tensor]
"""Cuts a stretch out of an utterance's frames: [frames, layers, dim] -> [fewer frames, layers, dim]."""

LiveFeatures = Callable[[Sequence[str]], list[Tensor]]
"""Computes the features of clips, given their digests, with a pass of the upstream."""


class Place(NamedTuple):
    """The place of a clip's features: the number of the shard, and the first row and the one after the last."""

    shard: int
    first: int
    last: int


@dataclass(frozen=True)
class FeatureDataset:
    """The features of every clip of a corpus, by the clip's `audio.digest`; splits and folds read from it.

    Shards are memory-mapped files: rows are read from the disk, or from the system's page cache. So a dataset takes a
    few hundred bytes of memory per clip, however many frames there are.
    """

    pooled: bool
    layers: int
    """Number of hidden states."""
    dim: int
    """Width of a hidden state."""
    shards: list[Tensor]
    """[utterances, layers, dim] where pooled, else [frames of all, layers, dim]."""
    places: dict[str, Place]
    extracted: int
    """Clips that this run extracted and stored; the others were stored before."""
    made_on: str
    """Device and precision of the extraction, from the shards' headers."""
    live: LiveFeatures | None = None
    unstored: frozenset[str] = field(default=frozenset())
    """Clips that are not stored: `live` computes them whenever they are read."""

    def __len__(self) -> int:
        return len(self.places) + len(self.unstored)

    def read(self, digests: Sequence[str]) -> list[Tensor]:
        """Return the features of clips, [layers, dim] where pooled, else [frames, layers, dim]."""
        missing = [digest for digest in dict.fromkeys(digests) if digest not in self.places]
        computed = dict(zip(missing, self.live(missing), strict=True)) if missing and self.live else {}
        return [computed[digest] if digest in computed else self._stored(digest) for digest in digests]

    def _stored(self, digest: str) -> Tensor:
        place = self.places[digest]
        shard = self.shards[place.shard]
        return shard[place.first] if self.pooled else shard[place.first : place.last]

    def norms(self) -> list[float]:
        """Return the mean norm of each layer's vectors (of the means over time, where pooled) over some clips.

        Layer weights alone mean little where norms differ between layers; weight times norm means more.
        """
        some = self.read(sorted(self.places)[:NORM_CLIPS] or sorted(self.unstored)[:NORM_LIVE_CLIPS])
        norms = [row.float().norm(dim=-1).reshape(-1, row.shape[-2]).mean(dim=0) for row in some]
        return [float(norm) for norm in torch.stack(norms).mean(dim=0)]

    def select(self, digests: Sequence[str]) -> Features:
        """Return the features of the clips with these digests, in this order."""
        return Features(self, list(digests))


@dataclass(frozen=True)
class Features:
    """The features of a split, by position in its manifest.

    `on_device` holds all of them where heads are trained, [utterances, layers, dim] as they are stored. `pinned` makes
    batches of frames in pinned memory, as they are stored, from where a GPU copies them while this process goes on.
    """

    dataset: FeatureDataset
    digests: list[str]
    on_device: Tensor | None = None
    pinned: bool = False

    @classmethod
    def from_tensors(cls, rows: Sequence[Tensor]) -> Features:
        """Return features that are in memory: [layers, dim] each, or [frames, layers, dim]."""
        names = [str(i) for i in range(len(rows))]
        pooled = rows[0].dim() == 2
        shards = [row[None] if pooled else row for row in rows]
        places = {
            name: Place(i, 0, 0 if pooled else len(row)) for i, (name, row) in enumerate(zip(names, rows, strict=True))
        }
        return cls(FeatureDataset(pooled, rows[0].shape[-2], rows[0].shape[-1], shards, places, 0, ""), names)

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def pooled(self) -> bool:
        """Whether these are means over time."""
        return self.dataset.pooled

    def to(self, device: str) -> Features:
        """Return the features as heads on a device read them; means over time lie there where they fit."""
        on_cpu = devices.kind(device) == devices.CPU
        if not self.pooled:
            return self if on_cpu else replace(self, pinned=devices.kind(device) == "cuda")
        size = len(self) * self.dataset.read(self.digests[:1])[0].nbytes
        if size > (HOST_BYTES if on_cpu else DEVICE_SHARE * memory.free_bytes(device)):
            return self
        return replace(self, on_device=torch.stack(self.rows()).to(device))

    def frame_counts(self) -> list[int | None]:
        """Return the frames of each utterance; None where they are not stored."""
        places = (self.dataset.places.get(digest) for digest in self.digests)
        return [None if place is None else place.last - place.first for place in places]

    def rows(self) -> list[Tensor]:
        """Return every utterance's features, memory-mapped where they are stored."""
        return self.dataset.read(self.digests)

    def batch(self, indices: Sequence[int], crop: Crop | None = None) -> FeatureBatch:
        """Return the features of the utterances at `indices`; `crop` cuts frames, but not means.

        They are float32, unless they are pinned (`FeatureBatch.to`).
        """
        if self.on_device is not None:
            chosen = copy_to(torch.tensor(indices), self.on_device.device)
            return FeatureBatch(self.on_device[chosen].float(), torch.ones(len(indices), dtype=torch.long))
        rows = self.dataset.read([self.digests[i] for i in indices])
        if self.pooled:
            return FeatureBatch(torch.stack(rows).float(), torch.ones(len(rows), dtype=torch.long))
        if crop is not None:
            rows = [crop(row) for row in rows]
        padded = _pad(rows, self.pinned)
        return FeatureBatch(padded if self.pinned else padded.float(), torch.tensor([len(row) for row in rows]))


def _pad(rows: Sequence[Tensor], pinned: bool) -> Tensor:
    """Return frames [frames, layers, dim] of several utterances as [batch, longest, layers, dim], zeros after them.

    In pinned memory each number is written once: to pin a padded batch would copy it. Without CUDA, it is plain memory.
    """
    if not pinned:
        return pad_sequence(list(rows), batch_first=True)
    shape = (len(rows), max(map(len, rows)), *rows[0].shape[1:])
    padded = torch.empty(shape, dtype=rows[0].dtype, pin_memory=torch.cuda.is_available())
    for row, place in zip(rows, padded, strict=True):
        place[: len(row)] = row
        place[len(row) :] = 0
    return padded
