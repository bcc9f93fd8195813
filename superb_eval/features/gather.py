"""The features of a corpus: read from the store, extracted where they are missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from superb_eval.audio import Clip
from superb_eval.features.extract import VERSION, Extraction, extract
from superb_eval.features.store import Store
from upstreams.base import Upstream

SHARD_UTTERANCES = 128
"""Aimed at. A killed extraction loses one shard's work at most; a shard has to fit in memory."""

NORM_CLIPS = 256
"""Clips whose features tell how long a layer's vectors are; the first by digest, which is to say at random."""

Progress = Callable[[int], None]
"""Called with the number of utterances done."""


@dataclass(frozen=True)
class Batch:
    """Features of some utterances, `[batch, layers, dim]` pooled or `[batch, frames, layers, dim]` padded.

    `lengths` [batch] counts valid frames; None where features are pooled.
    """

    hidden: Tensor
    lengths: Tensor | None


Crop = Callable[[Tensor], Tensor]
"""Cuts a stretch out of an utterance's frames: [frames, layers, dim] -> [fewer frames, layers, dim]."""


@dataclass(frozen=True)
class Features:
    """The features of a split, by position in its manifest."""

    values: Tensor | list[Tensor]
    """Pooled: [utterances, layers, dim]. Else one [frames, layers, dim] per utterance."""

    @property
    def pooled(self) -> bool:
        """Whether these are means over time."""
        return isinstance(self.values, Tensor)

    @property
    def layers(self) -> int:
        """Number of hidden states."""
        return self.values[0].shape[-2]

    @property
    def dim(self) -> int:
        """Width of a hidden state."""
        return self.values[0].shape[-1]

    def batch(self, indices: Sequence[int], crop: Crop | None = None) -> Batch:
        """Return the features of the utterances at `indices`, as float32; `crop` cuts frames, and not means."""
        if isinstance(self.values, Tensor):
            return Batch(self.values[torch.tensor(indices)].float(), None)
        rows = [self.values[i] for i in indices]
        if crop is not None:
            rows = [crop(row) for row in rows]
        return Batch(pad_sequence(rows, batch_first=True).float(), torch.tensor([len(row) for row in rows]))


@dataclass(frozen=True)
class Bank:
    """The features of every clip of a corpus, by the clip's `audio.digest`; splits and folds draw on it."""

    rows: dict[str, Tensor]
    pooled: bool
    extracted: int
    """Clips that the upstream was run on; the others came from the store."""
    made_on: str
    """Device and precision of the extraction, as the shards tell."""

    def norms(self) -> list[float]:
        """Return the mean length of each layer's vectors (of the means over time, where pooled), over some clips.

        Weights of layers say little of layers whose vectors differ in length; their product says more.
        """
        some = [self.rows[digest] for digest in sorted(self.rows)[:NORM_CLIPS]]
        lengths = [row.float().norm(dim=-1).reshape(-1, row.shape[-2]).mean(dim=0) for row in some]
        return [float(length) for length in torch.stack(lengths).mean(dim=0)]

    def select(self, digests: Sequence[str]) -> Features:
        """Return the features of the clips with these digests, in this order."""
        rows = [self.rows[digest] for digest in digests]
        return Features(torch.stack(rows) if self.pooled else rows)


@dataclass(frozen=True)
class Source:
    """What features are made with: an upstream, its fingerprint, the settings, and the device it runs on."""

    upstream: Upstream
    fingerprint: str
    how: Extraction
    device: str


def gather(source: Source, clip_of: Mapping[str, Clip], store: Store, progress: Progress) -> Bank:
    """Return the features of clips, given by their `audio.digest`.

    Clips are dealt into shards by digest, so that a clip more or less in a corpus changes one shard.

    Raises:
        UserError: see `extract` and `Store.write`.
    """
    found: dict[str, Tensor] = {}
    extracted, made_on = 0, set()
    for hand in _deal(sorted(clip_of)):
        path = store.address(str(VERSION), source.fingerprint, source.how.describe(), *hand)
        with store.lock(path):
            shard = store.read(path)
            if shard is None:
                shard = store.write(path, _make(source, [clip_of[digest] for digest in hand]), _about(source))
                extracted += len(hand)
        made_on.add(shard.about["made_on"])
        found.update(zip(hand, _split(shard.tensors, source.how.kind == "pooled"), strict=True))
        progress(len(found))
    return Bank(found, source.how.kind == "pooled", extracted, ", ".join(sorted(made_on)))


def _deal(digests: Sequence[str]) -> list[list[str]]:
    """Deal sorted digests into shards by their leading bits; a power of two of them, so that growth splits shards."""
    bits = max(0, round(math.log2(max(1, len(digests)) / SHARD_UTTERANCES)))
    hands: dict[int, list[str]] = {}
    for digest in digests:
        hands.setdefault(int(digest[:8], 16) >> (32 - bits), []).append(digest)
    return list(hands.values())


def _about(source: Source) -> dict[str, str]:
    return {"made_on": f"{source.device} {source.how.precision}", "upstream": source.upstream.card.name}


def _make(source: Source, clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Extract one shard: `values` [utterances, layers, dim], or [frames of all, layers, dim] with `lengths`."""
    rows = dict(extract(source.upstream, clips, source.how, source.device))
    ordered = [rows[i] for i in range(len(clips))]
    if source.how.kind == "pooled":
        return {"values": torch.stack(ordered)}
    return {"values": torch.cat(ordered), "lengths": torch.tensor([len(row) for row in ordered])}


def _split(tensors: dict[str, Tensor], pooled: bool) -> Sequence[Tensor]:
    if pooled:
        return tensors["values"].unbind()
    return torch.split(tensors["values"], tensors["lengths"].tolist())
