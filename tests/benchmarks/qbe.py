"""QbE: one dtw-python call for each pair, as in s3prl, against matrix products over many documents; equal costs.

First both on one core, in CPU seconds; then ours on all cores, in wall-clock seconds, where groups of documents are
searched in parallel.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from downstreams.metrics import dtw
from superb_eval.runtime.threads import available_cores, limit_threads
from tests.benchmarks.timing import pair, seconds

WIDTH, QUERIES, DOCUMENTS = 768, 16, 120


def run() -> str:
    from dtw import dtw as reference
    from scipy.spatial.distance import cdist

    rng = np.random.default_rng(0)
    queries = [torch.from_numpy(rng.standard_normal((n, WIDTH), np.float32)) for n in rng.integers(40, 80, QUERIES)]
    documents = [
        torch.from_numpy(rng.standard_normal((n, WIDTH), np.float32)) for n in rng.integers(200, 600, DOCUMENTS)
    ]

    def theirs(query: torch.Tensor, document: torch.Tensor) -> float:
        between = np.exp(cdist(query.numpy(), document.numpy(), "cosine")) - 1
        low, high = between.min(axis=1, keepdims=True), between.max(axis=1, keepdims=True)
        between = (between - low) / np.maximum(high - low, dtw.FLOOR)
        how = {"step_pattern": "asymmetric", "open_end": True, "open_begin": True}
        return float(reference(between, **how, distance_only=True).normalizedDistance)

    few = [(i, j) for i in range(QUERIES) for j in range(0, DOCUMENTS, 40)]
    costs = dtw.match(queries, documents, "cosine_exp")
    worst = max(abs(theirs(queries[i], documents[j]) - costs[i, j]) for i, j in few)
    assert worst < 1e-6, worst
    measured = pair(
        lambda: [theirs(queries[i], documents[j]) for i, j in few],
        lambda: dtw.match(queries, documents, "cosine_exp"),
        rounds=5,
    )
    share = QUERIES * DOCUMENTS / len(few)
    frame_pairs = sum(map(len, queries)) * sum(map(len, documents))
    a, b = torch.randn(1024, WIDTH), torch.randn(4096, WIDTH)
    with limit_threads(1):
        torch.mm(a, b.T)
        floor = seconds(lambda: torch.mm(a, b.T)) / (1024 * 4096) * frame_pairs
    ratios = [ratio * share for ratio in measured.ratios]
    cores = available_cores()
    clock = sorted(_clock(lambda: dtw.match(queries, documents, "cosine_exp")) for _ in range(5))
    slow = sorted(_clock(lambda: [theirs(queries[i], documents[j]) for i, j in few]) for _ in range(3))[1]
    together = f"{share * slow / clock[2]:.3g} x ({share * slow / clock[-1]:.3g} to {share * slow / clock[0]:.3g})"
    reached = floor / sorted(measured.fast)[len(measured.fast) // 2]
    return (
        f"qbe, dtw-python / ours, one core each: {ratios[len(ratios) // 2]:.3g} x "
        f"({ratios[0]:.3g} to {ratios[-1]:.3g}); {100 * reached:.0f} % of the product's own speed; "
        f"costs differ by {worst:.1e} at most\n"
        f"qbe, one process of dtw-python / ours on {cores} cores, by the clock: {together}"
    )


def _clock(function: Callable[[], object]) -> float:
    before = time.perf_counter()
    function()
    return time.perf_counter() - before
