"""The features of one split: read from the store, extracted where they are missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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

Progress = Callable[[int], None]
"""Called with the number of utterances done."""


@dataclass(frozen=True)
class Batch:
    """Features of some utterances, `[batch, layers, dim]` pooled or `[batch, frames, layers, dim]` padded.

    `lengths` [batch] counts valid frames; None where features are pooled.
    """

    hidden: Tensor
    lengths: Tensor | None


@dataclass(frozen=True)
class Features:
    """The features of a split, by position in its manifest."""

    values: Tensor | list[Tensor]
    """Pooled: [utterances, layers, dim]. Else one [frames, layers, dim] per utterance."""
    extracted: int
    """Utterances that the upstream was run on."""
    stored: int
    """Utterances whose features came from the store."""
    made_on: str
    """Device and precision of the extraction, as the shards tell."""

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

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return the features of the utterances at `indices`, as float32."""
        if isinstance(self.values, Tensor):
            return Batch(self.values[torch.tensor(indices)].float(), None)
        rows = [self.values[i] for i in indices]
        return Batch(pad_sequence(rows, batch_first=True).float(), torch.tensor([len(row) for row in rows]))


def gather(
    upstream: Upstream,
    fingerprint: str,
    clips: Sequence[Clip],
    digests: Sequence[str],
    how: Extraction,
    store: Store,
    device: str,
    progress: Progress,
) -> Features:
    """Return the features of `clips`; `digests` are their `audio.digest`s, `fingerprint` is the upstream's.

    Clips are dealt into shards by digest, so that a clip more or less in a corpus changes one shard.

    Raises:
        UserError: see `extract` and `Store.write`.
    """
    clip_of = dict(zip(digests, clips, strict=True))
    found: dict[str, Tensor] = {}
    extracted, made_on = 0, set()
    for hand in _deal(sorted(clip_of)):
        path = store.address(str(VERSION), fingerprint, how.describe(), *hand)
        with store.lock(path):
            shard = store.read(path)
            if shard is None:
                tensors = _make(upstream, [clip_of[d] for d in hand], how, device)
                shard = store.write(
                    path, tensors, {"made_on": f"{device} {how.precision}", "upstream": upstream.card.name}
                )
                extracted += len(hand)
        made_on.add(shard.about["made_on"])
        found.update(zip(hand, _split(shard.tensors, how.kind == "pooled"), strict=True))
        progress(len(found))
    rows = [found[digest] for digest in digests]
    values = torch.stack(rows) if how.kind == "pooled" else rows
    return Features(values, extracted, len(found) - extracted, ", ".join(sorted(made_on)))


def _deal(digests: Sequence[str]) -> list[list[str]]:
    """Deal sorted digests into shards by their leading bits; a power of two of them, so that growth splits shards."""
    bits = max(0, round(math.log2(max(1, len(digests)) / SHARD_UTTERANCES)))
    hands: dict[int, list[str]] = {}
    for digest in digests:
        hands.setdefault(int(digest[:8], 16) >> (32 - bits), []).append(digest)
    return list(hands.values())


def _make(upstream: Upstream, clips: Sequence[Clip], how: Extraction, device: str) -> dict[str, Tensor]:
    """Extract one shard: `values` [utterances, layers, dim], or [frames of all, layers, dim] with `lengths`."""
    rows = dict(extract(upstream, clips, how, device))
    ordered = [rows[i] for i in range(len(clips))]
    if how.kind == "pooled":
        return {"values": torch.stack(ordered)}
    return {"values": torch.cat(ordered), "lengths": torch.tensor([len(row) for row in ordered])}


def _split(tensors: dict[str, Tensor], pooled: bool) -> Sequence[Tensor]:
    if pooled:
        return tensors["values"].unbind()
    return torch.split(tensors["values"], tensors["lengths"].tolist())
