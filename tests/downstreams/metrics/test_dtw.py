"""DTW and frame distances against dtw-python, scipy and s3prl's own functions."""

from __future__ import annotations

import ast
import importlib.util
import warnings
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from downstreams.metrics import dtw
from downstreams.metrics.dtw import costs, match
from downstreams.metrics.frame_distances import Distance, frame_distances, normalised, prepare_frames

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dtw as reference

PATTERN = {"step_pattern": "asymmetric", "open_begin": True, "open_end": True, "keep_internals": False}


def distances(query: torch.Tensor, document: torch.Tensor, distance: Distance) -> torch.Tensor:
    return frame_distances(prepare_frames(query, distance), prepare_frames(document, distance), distance)


def scaled(rows: np.ndarray) -> np.ndarray:
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    return (rows - low) / np.clip(high - low, 1e-9, np.inf)


def alone(rows: np.ndarray) -> float:
    return float(costs(rows, np.array([0, rows.shape[1]]))[0])


@pytest.mark.parametrize("shape", [(60, 400), (1, 1), (1, 9), (9, 1), (2, 2), (5, 2), (40, 11), (11, 40), (3, 1000)])
def test_costs_equal_dtw_pythons(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(sum(shape)).random(shape)
    assert alone(rows) == pytest.approx(reference.dtw(x=scaled(rows), **PATTERN).normalizedDistance, abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.integers(1, 14), st.integers(0, 2**31), st.booleans())
def test_costs_equal_dtw_pythons_on_random_sizes(queries: int, frames: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 3, (queries, frames)).astype(float) if ties else rng.random((queries, frames))
    assert alone(rows) == pytest.approx(reference.dtw(x=scaled(rows), **PATTERN).normalizedDistance, abs=1e-6)


def test_documents_side_by_side_do_not_hear_one_another() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.random((7, frames)) for frames in (30, 1, 12, 2)]
    together = costs(np.concatenate(rows, axis=1), np.cumsum([0, 30, 1, 12, 2]))
    np.testing.assert_allclose(together, [alone(r) for r in rows], atol=1e-12)


def s3prls(*functions: str) -> dict[str, Any]:
    """Functions of s3prl's `downstream/quesst14_dtw/expert.py`, which imports packages that are gone."""
    spec = importlib.util.find_spec("s3prl")
    assert spec is not None and spec.origin is not None, "s3prl is a dependency"
    source = Path(spec.origin).parent / "downstream" / "quesst14_dtw" / "expert.py"
    actual = [n for n in ast.parse(source.read_text()).body if isinstance(n, ast.FunctionDef) and n.name in functions]
    names: dict[str, Any] = {}
    exec("import numpy as np\nfrom dtw import dtw\nfrom scipy.spatial import distance\n", names)
    exec("\n".join(map(ast.unparse, actual)), names)
    return names


@pytest.mark.parametrize("distance", get_args(Distance))
def test_matching_equals_s3prls(distance: Distance) -> None:
    from functools import partial

    from scipy.spatial.distance import cdist

    theirs = s3prls("match", "cosine_exp")
    how = theirs["cosine_exp"] if distance == "cosine_exp" else partial(cdist, metric=distance)
    draw = torch.Generator().manual_seed(0)
    queries = [torch.randn(frames, 24, generator=draw) for frames in (9, 30)]
    documents = [torch.randn(frames, 24, generator=draw) for frames in (50, 3, 80)]
    pattern = {**PATTERN, "distance_only": False}
    expected = [
        [-theirs["match"](q.numpy(), d.numpy(), "q", "d", how, True, pattern)[2] for d in documents] for q in queries
    ]
    np.testing.assert_allclose(match(queries, documents, distance), expected, atol=1e-6)


@pytest.mark.parametrize("distance", get_args(Distance))
def test_distances_equal_scipys(distance: Distance) -> None:
    from scipy.spatial.distance import cdist

    query, document = torch.randn(7, 60), torch.randn(31, 60)
    expected = cdist(query.double(), document.double(), distance.partition("_")[0])
    expected = np.exp(expected) - 1 if distance == "cosine_exp" else expected
    np.testing.assert_allclose(distances(query, document, distance), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("distance", get_args(Distance))
def test_a_query_matches_itself_perfectly_and_inside_a_longer_document(distance: Distance) -> None:
    draw = torch.Generator().manual_seed(3)
    query, other = torch.randn(20, 64, generator=draw), torch.randn(15, 64, generator=draw)
    actual = match([query], [query, torch.cat([other, query, other]), other], distance)
    np.testing.assert_allclose(actual[0, :2], 0, atol=1e-6)
    assert actual[0, 2] > 0.1


def test_groups_of_documents_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = [torch.randn(6, 10), torch.randn(9, 10)]
    documents = [torch.randn(frames, 10) for frames in (12, 40, 5, 5, 30, 1)]
    whole = match(queries, documents, "cosine_exp")
    for size in (1, 17, 45):
        monkeypatch.setattr(dtw, "DOCUMENT_FRAMES", size)
        np.testing.assert_allclose(match(queries, documents, "cosine_exp"), whole, atol=1e-6)


def test_features_are_normalised_over_all_frames() -> None:
    features = [3 + 5 * torch.randn(frames, 4) for frames in (30, 1, 12)]
    together = torch.cat(features)
    expected = (together - together.mean(0)) / torch.clamp(together.std(0), 1e-9)
    torch.testing.assert_close(torch.cat(normalised(features)), expected, rtol=1e-5, atol=1e-5)
    assert normalised([torch.ones(1, 3)])[0].tolist() == [[0, 0, 0]], "nothing varies: no division by zero"


def test_features_in_16_bits_are_normalised_in_32() -> None:
    features = [torch.randn(frames, 4).half() for frames in (30, 2100)]
    expected = normalised([frames.float() for frames in features])
    assert [frames.dtype for frames in normalised(features)] == [torch.float32] * 2
    torch.testing.assert_close(normalised(features), expected, rtol=0, atol=0)


def test_frames_of_zeros_are_far_from_everything() -> None:
    assert distances(torch.zeros(1, 3), torch.ones(1, 3), "cosine").item() == 1


def test_a_process_with_rounded_products_has_exact_ones_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def observed(*frames: torch.Tensor, distance: Distance) -> torch.Tensor:
        assert torch.get_float32_matmul_precision() == "highest"
        return frame_distances(*frames, distance)

    monkeypatch.setattr(dtw, "frame_distances", lambda q, d, distance: observed(q, d, distance=distance))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        match([torch.randn(3, 4)], [torch.randn(5, 4)], "cosine")
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_without_a_folder_to_write_nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    def refusing(cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", refusing)
    dtw._compiled_recursion.cache_clear()
    try:
        assert alone(np.array([[0.0, 1.0], [1.0, 0.0]])) == 0
    finally:
        dtw._compiled_recursion.cache_clear()
