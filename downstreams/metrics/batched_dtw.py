"""Subsequence DTW on a GPU: the recursion of `dtw.costs` over all pairs of a block at once, as tensor operations.

Queries of a block go on in lock step, a frame at a time, and documents of similar length share a padded tensor. With
QUESST14's 138 queries of 40 to 90 frames and 2 438 documents of 200 to 450, there are 55 blocks of 89 query frames with
three kernels each: 15 600 in all, and one read from the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from downstreams.metrics.frame_distances import FLOOR, Distance, frame_distances, prepare_frames
from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_DISTANCES = 2**27
"""Frame distances of a block, or of one document: 0.5 GB in float32, and as much while they are padded."""

BLOCK_QUERY_FRAMES = 16_384
"""Query frames of a block."""


class _Queries(NamedTuple):
    """Queries in lock step: `frames` [frames of all, dim] are prepared, the first of each query before the second ones.

    Queries lie longest first, so that those with a frame `i`, which are `active[i]`, lie together.
    """

    frames: Tensor
    active: list[int]


def match(
    queries: Sequence[Tensor], documents: Sequence[Tensor], distance: Distance, device: str
) -> NDArray[np.float64]:
    """Return what `dtw.match` does, [queries, documents], computed on `device`."""
    query_order, document_order = _longest_first(queries), _longest_first(documents)
    queries, documents = [queries[i] for i in query_order], [documents[i] for i in document_order]
    lengths = torch.tensor([len(document) for document in documents], device=device)
    sums = torch.empty(len(queries), len(documents), device=device)
    for rows in _blocks(queries, BLOCK_QUERY_FRAMES):
        block = _in_lock_step(queries[rows], distance, device)
        for columns in _blocks(documents, BLOCK_DISTANCES // len(block.frames)):
            padded = _padded_distances(block.frames, documents[columns], lengths[columns], distance)
            sums[rows, columns] = path_sums(padded, block.active)
            del padded  # before the next block is computed
    matched = np.empty(sums.shape)
    matched[np.ix_(query_order, document_order)] = sums.cpu() / torch.tensor([[len(query)] for query in queries])
    return matched


def path_sums(between: Tensor, active: Sequence[int]) -> Tensor:
    """Return the sum of distances along the best path of queries in documents, [queries, documents]; see `dtw.costs`.

    `between` [query frames, documents, frames] are frame distances of queries in lock step: those of the first frames
    of all `active[0]` queries, then those of the second frames of the first `active[1]` queries, and so on. They are
    changed in place.
    """
    low, high = torch.aminmax(between, dim=-1, keepdim=True)
    between.sub_(low).mul_((high - low).clamp_(min=FLOOR).reciprocal_())
    # The cost of the best path that ends in each frame; paths don't begin in the two columns before the first.
    best = between.new_zeros(active[0], between.shape[1], between.shape[2] + 2)
    best[..., :2].fill_(torch.inf)
    first = 0
    for count in active:
        so_far = best[:count]
        least = torch.minimum(so_far[..., 2:], so_far[..., 1:-1])
        torch.minimum(least, so_far[..., :-2], out=least)
        torch.add(least, between[first : first + count], out=so_far[..., 2:])
        first += count
    return best[..., 2:].amin(dim=-1)


def _longest_first(clips: Sequence[Tensor]) -> list[int]:
    return sorted(range(len(clips)), key=lambda i: -len(clips[i]))


def _blocks(clips: Sequence[Tensor], frames: int) -> Iterator[slice]:
    """Yield stretches of clips that have at most so many frames (or are one clip), each padded to its first."""
    first = 0
    while first < len(clips):
        last = min(len(clips), first + max(1, frames // len(clips[first])))
        yield slice(first, last)
        first = last


def _in_lock_step(queries: Sequence[Tensor], distance: Distance, device: str) -> _Queries:
    lengths = np.array([len(query) for query in queries])
    step = np.arange(lengths[0])[:, None]
    rows = np.cumsum(lengths) - lengths + step  # [longest, queries]
    valid = step < lengths
    frames = torch.cat(list(queries)).to(device)[torch.from_numpy(rows[valid]).to(device)]
    return _Queries(prepare_frames(frames, distance), valid.sum(axis=1).tolist())


def _padded_distances(queries: Tensor, documents: Sequence[Tensor], lengths: Tensor, distance: Distance) -> Tensor:
    """Return the distances of prepared query frames to documents, longest first: [query frames, documents, frames].

    A document is padded with its last frame. That changes no cost: a path that goes on there could have waited.
    """
    frames = prepare_frames(torch.cat(list(documents)).to(queries.device), distance)
    between = frame_distances(queries, frames, distance).float()
    first = lengths.cumsum(dim=0) - lengths
    frame = torch.arange(len(documents[0]), device=queries.device)
    places = first[:, None] + torch.minimum(frame, lengths[:, None] - 1)
    return between.index_select(1, places.flatten()).view(-1, *places.shape)
