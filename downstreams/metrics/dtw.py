"""How well a query matches a document: frame distances as matrix products, and subsequence DTW over them.

s3prl (`downstream/quesst14_dtw/expert.py`) makes a distance matrix and calls dtw-python for each pair of a query and a
document. The costs here are the same; one product gives the distances of a query to many documents, and the recursion,
which has no dependence within a row, is compiled. On a GPU it is `batched_dtw`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from downstreams.metrics import batched_dtw
from downstreams.metrics.frame_distances import FLOOR, Distance, exact_products, frame_distances, prepare_frames
from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

DOCUMENT_FRAMES = 4096
"""Document frames in one product."""

QUERY_FRAMES = 1024
"""Query frames in one product, of many queries: products with the 60 rows of one ran at half the speed."""


def match(
    queries: Sequence[Tensor], documents: Sequence[Tensor], distance: Distance, device: str = "cpu"
) -> NDArray[np.float64]:
    """Return the cost of the best match of each query in each document, [queries, documents]: 0 is a perfect one.

    Features are [frames, dim] each, on the CPU or on `device`. Costs are those of float32 products.
    """
    with exact_products():
        return (
            _match_compiled(queries, documents, distance)
            if device == "cpu"
            else batched_dtw.match(queries, documents, distance, device)
        )


def _match_compiled(queries: Sequence[Tensor], documents: Sequence[Tensor], distance: Distance) -> NDArray[np.float64]:
    """See `match`. Groups of documents are searched side by side, on as many threads as torch may use and one core
    each, so that costs don't depend on their number."""
    matched = np.empty((len(queries), len(documents)))
    blocks = [
        (first, np.cumsum([0, *map(len, some)]), prepare_frames(torch.cat(list(some)), distance))
        for first, some in _group_clips(queries, QUERY_FRAMES)
    ]

    def search(group: tuple[int, Sequence[Tensor]]) -> None:
        first, some = group
        frames = prepare_frames(torch.cat(list(some)), distance)
        bounds = np.cumsum([0, *map(len, some)])
        for place, rows, block in blocks:
            between = frame_distances(block, frames, distance).float().numpy()
            for k in range(len(rows) - 1):
                matched[place + k, first : first + len(some)] = costs(between[rows[k] : rows[k + 1]], bounds)

    with ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(search, _group_clips(documents, DOCUMENT_FRAMES)))
    return matched


def costs(between: NDArray[Any], bounds: NDArray[np.intp]) -> NDArray[Any]:
    """Return the cost of a query in each of several documents, [documents].

    `between` [query frames, frames of all documents] holds frame distances; document k is the columns from `bounds[k]`
    to `bounds[k + 1]`. Within a document each row is scaled to 0 ... 1. The best path then begins and ends anywhere and
    with each query frame goes 0, 1 or 2 frames on (step pattern `asymmetric`); its cost is the mean of its distances.
    """
    per_document: NDArray[Any] = _compiled_recursion()(
        np.ascontiguousarray(between), np.asarray(bounds, dtype=np.int64)
    )
    return per_document


def _group_clips(clips: Sequence[Tensor], frames: int) -> Iterator[tuple[int, Sequence[Tensor]]]:
    """Yield runs of clips of at most so many frames (or one clip), each with the index of its first."""
    first = count = 0
    for k, clip in enumerate(clips):
        if k > first and count + len(clip) > frames:
            yield first, clips[first:k]
            first, count = k, 0
        count += len(clip)
    if clips:
        yield first, clips[first:]


@cache
def _compiled_recursion() -> Callable[..., Any]:
    """The recursion, compiled; cached on disk where numba finds a folder that it may write."""
    import numba

    # The features are finite (`superb_eval.features.extract`): without NaN, minima run several columns at a time.
    options = {"nogil": True, "fastmath": {"nnan", "nsz"}}
    try:
        return numba.njit(cache=True, **options)(_recursion)  # type: ignore[no-any-return]
    except RuntimeError:  # a read-only installation without a home
        return numba.njit(**options)(_recursion)  # type: ignore[no-any-return]


def _recursion(between: NDArray[Any], bounds: NDArray[np.int64]) -> NDArray[Any]:
    """See `costs`. `best[j + 2]` is the cost of the best path that ends in column j, over the rows so far."""
    rows, width, documents = between.shape[0], between.shape[1], len(bounds) - 1
    number = between.dtype.type
    best = np.empty(width + 2, between.dtype)
    before = np.empty(width + 2, between.dtype)
    mean_costs = np.empty(documents, between.dtype)
    for k in range(documents):
        columns = bounds[k + 1] - bounds[k]
        before[: columns + 2] = 0
        for i in range(rows):
            row = between[i, bounds[k] : bounds[k + 1]]
            low = high = row[0]
            for j in range(columns):
                low = min(low, row[j])
                high = max(high, row[j])
            scale = number(1) / max(high - low, number(FLOOR))
            best[:2] = np.inf
            for j in range(columns):
                best[j + 2] = (row[j] - low) * scale + min(before[j + 2], before[j + 1], before[j])
            best, before = before, best
        least = before[2]
        for j in range(columns):
            least = min(least, before[j + 2])
        mean_costs[k] = least / rows
    return mean_costs
