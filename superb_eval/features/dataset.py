"""The features of a corpus as heads ask for them: rows of stored shards, and live ones where the store has no room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

NORM_CLIPS = 256
"""Clips whose features tell how long a layer's vectors are; the first by digest, which is to say at random."""


NORM_LIVE = 8
"""As many where none is stored."""


@dataclass(frozen=True)
class Batch:
    """Features of some utterances, `[batch, layers, dim]` pooled or `[batch, frames, layers, dim]` padded.

    `lengths` [batch] counts valid frames; None where features are pooled.
    """

    hidden: Tensor
    lengths: Tensor | None

    def part(self, first: int, last: int) -> Batch:
        """Return some of the utterances, padded no further than they need."""
        if self.lengths is None:
            return Batch(self.hidden[first:last], None)
        lengths = self.lengths[first:last]
        return Batch(self.hidden[first:last, : int(lengths.max())], lengths)


Crop = Callable[[Tensor], Tensor]
"""Cuts a stretch out of an utterance's frames: [frames, layers, dim] -> [fewer frames, layers, dim]."""

Live = Callable[[Sequence[str]], list[Tensor]]
"""Computes the features of clips, given by their digests, anew: a pass of the upstream."""


class Place(NamedTuple):
    """Where a clip's features lie: the number of the shard, and the first row and the one after the last."""

    shard: int
    first: int
    last: int


@dataclass(frozen=True)
class FeatureDataset:
    """The features of every clip of a corpus, by the clip's `audio.digest`; splits and folds draw on it.

    Shards are memory-mapped files: what is drawn is read from the disk, or from what the system keeps of it in memory
    that nobody else needs. So a bank takes a few hundred bytes per clip, however many frames there are.
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
    """Clips that the upstream was run on to fill the store; the others came from there."""
    made_on: str
    """Device and precision of the extraction, as the shards tell."""
    live: Live | None = None
    unstored: frozenset[str] = field(default=frozenset())
    """Clips that have no place: `live` computes them whenever they are drawn."""

    def __len__(self) -> int:
        return len(self.places) + len(self.unstored)

    def draw(self, digests: Sequence[str]) -> list[Tensor]:
        """Return the features of clips, [layers, dim] where pooled, else [frames, layers, dim]."""
        missing = [digest for digest in dict.fromkeys(digests) if digest not in self.places]
        computed = dict(zip(missing, self.live(missing), strict=True)) if missing and self.live else {}
        return [computed[digest] if digest in computed else self._stored(digest) for digest in digests]

    def _stored(self, digest: str) -> Tensor:
        place = self.places[digest]
        shard = self.shards[place.shard]
        return shard[place.first] if self.pooled else shard[place.first : place.last]

    def norms(self) -> list[float]:
        """Return the mean length of each layer's vectors (of the means over time, where pooled), over some clips.

        Weights of layers say little of layers whose vectors differ in length; their product says more.
        """
        some = self.draw(sorted(self.places)[:NORM_CLIPS] or sorted(self.unstored)[:NORM_LIVE])
        lengths = [row.float().norm(dim=-1).reshape(-1, row.shape[-2]).mean(dim=0) for row in some]
        return [float(length) for length in torch.stack(lengths).mean(dim=0)]

    def select(self, digests: Sequence[str]) -> Features:
        """Return the features of the clips with these digests, in this order."""
        return Features(self, list(digests))


@dataclass(frozen=True)
class Features:
    """The features of a split, by position in its manifest."""

    bank: FeatureDataset
    digests: list[str]

    @classmethod
    def of(cls, rows: Sequence[Tensor]) -> Features:
        """Return features that are at hand: [layers, dim] each, or [frames, layers, dim]."""
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
        return self.bank.pooled

    def rows(self) -> list[Tensor]:
        """Return every utterance's features, memory-mapped where they are stored."""
        return self.bank.draw(self.digests)

    def batch(self, indices: Sequence[int], crop: Crop | None = None) -> Batch:
        """Return the features of the utterances at `indices`, as float32; `crop` cuts frames, and not means."""
        rows = self.bank.draw([self.digests[i] for i in indices])
        if self.pooled:
            return Batch(torch.stack(rows).float(), None)
        if crop is not None:
            rows = [crop(row) for row in rows]
        return Batch(pad_sequence(rows, batch_first=True).float(), torch.tensor([len(row) for row in rows]))
