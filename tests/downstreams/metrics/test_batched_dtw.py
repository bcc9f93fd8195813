"""The recursion as tensor operations, which GPUs run, against the compiled one; here both run on the CPU."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from downstreams.metrics import batched_dtw, dtw
from downstreams.metrics.frame_distances import Distance


def clips(rng: np.random.Generator, lengths: list[int], dim: int = 24) -> list[torch.Tensor]:
    return [torch.from_numpy(rng.standard_normal((frames, dim), np.float32)) for frames in lengths]


@pytest.mark.parametrize("distance", get_args(Distance))
@pytest.mark.parametrize("seed", range(6))
def test_costs_equal_the_compiled_ones(distance: Distance, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of queries longer than documents too, documents of one frame, and blocks of every size."""
    rng = np.random.default_rng(seed)
    queries = clips(rng, rng.integers(1, 40, rng.integers(1, 8)).tolist())
    documents = clips(rng, [*rng.integers(1, 70, rng.integers(1, 20)).tolist(), 1, 1])
    documents.append(torch.cat([documents[0], queries[0]]))
    monkeypatch.setattr(batched_dtw, "BLOCK_QUERY_FRAMES", int(rng.integers(1, 120)))
    monkeypatch.setattr(batched_dtw, "BLOCK_DISTANCES", int(rng.integers(1, 20_000)))
    actual = batched_dtw.match(queries, documents, distance, "cpu")
    np.testing.assert_allclose(actual, dtw.match(queries, documents, distance), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_rows_with_ties_and_equal_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    active = sorted(rng.integers(1, 5, rng.integers(1, 12)).tolist(), reverse=True)
    count, frames = int(rng.integers(1, 6)), int(rng.integers(1, 15))
    between = rng.integers(0, 3, (sum(active), count, frames)).astype(np.float32)
    between[rng.random(len(between)) < 0.3] = 0.7
    starts = np.cumsum([0, *active])
    actual = batched_dtw.path_sums(torch.from_numpy(between.copy()), active)
    for query in range(active[0]):
        rows = [starts[step] + query for step, queries in enumerate(active) if queries > query]
        expected = dtw.costs(between[rows].reshape(len(rows), -1), np.arange(count + 1) * frames) * len(rows)
        np.testing.assert_allclose(actual[query], expected, rtol=0, atol=1e-5)


KERNELS = ("aten::minimum", "aten::minimum.out", "aten::add.out")
"""Of a query frame in a block."""


class Counted(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def operations(queries: int, documents: int, query_frames: int = 9) -> list[str]:
    rng = np.random.default_rng(0)
    lengths = [query_frames, *rng.integers(1, query_frames, queries - 1).tolist()]
    searched = clips(rng, lengths), clips(rng, [60, *rng.integers(20, 60, documents - 1).tolist()])
    with Counted() as counted:
        batched_dtw.match(*searched, "cosine_exp", "cpu")
    return counted.names


def test_operations_of_a_block_do_not_depend_on_its_pairs() -> None:
    few, many = operations(3, 4), operations(40, 60)
    assert few == many and len(few) < 150
    longer = operations(3, 4, query_frames=10)
    assert [name for name in KERNELS if longer.count(name) > few.count(name)] == list(KERNELS)
    assert "aten::_local_scalar_dense" not in many and "aten::nonzero" not in many, "nothing is read"


def test_a_search_of_quesst14_takes_the_blocks_that_are_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries = [torch.empty(int(n), 0) for n in rng.integers(40, 90, 138)]
    documents = [torch.empty(int(n), 0) for n in rng.integers(200, 450, 2_438)]
    ordered = [documents[i] for i in batched_dtw._longest_first(documents)]
    frames = sum(map(len, queries))
    assert frames <= batched_dtw.BLOCK_QUERY_FRAMES
    blocks = list(batched_dtw._blocks(ordered, batched_dtw.BLOCK_DISTANCES // frames))
    assert len(blocks) == 55 and sum(block.stop - block.start for block in blocks) == len(documents)
