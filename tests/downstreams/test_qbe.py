"""QbE: from one layer's features to scores and MTWV, against the protocol written out pair by pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.spatial.distance import cdist

from downstreams import registry
from downstreams.base import Prediction, SearchTask, Setup
from downstreams.qbe import QueryByExample, QuerySettings, as_stdlist, normalise_per_query
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Manifest, Trial, Utterance


def build(**settings: Any) -> QueryByExample:
    return QueryByExample(Setup(None, QuerySettings(**settings)))


def a_split(queries: int, documents: int, trials: list[Trial] | None = None) -> Manifest:
    names = [(f"q{i}", "query") for i in range(queries)] + [(f"d{i}", "document") for i in range(documents)]
    utterances = tuple(Utterance(name, Clip(Path(f"{name}.wav")), "s", {"role": role}) for name, role in names)
    every = [Trial(f"q{i}", f"d{k}", (i + k) % 3 == 0) for i in range(queries) for k in range(documents)]
    return Manifest("dev", utterances, Path(), tuple(every if trials is None else trials))


def features(lengths: list[int]) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [2 + 3 * torch.randn(n, 12, generator=draw) for n in lengths]


def by_the_protocol(queries: list[np.ndarray], documents: list[np.ndarray]) -> np.ndarray:
    """Protocol, section 6, in plain loops."""
    everything = np.concatenate(queries + documents)
    mean, spread = everything.mean(0), np.maximum(everything.std(0, ddof=1), 1e-9)
    scores = np.zeros((len(queries), len(documents)))
    for i, query in enumerate(queries):
        for k, document in enumerate(documents):
            d = np.exp(cdist((query - mean) / spread, (document - mean) / spread, "cosine")) - 1
            low, high = d.min(1, keepdims=True), d.max(1, keepdims=True)
            d = (d - low) / np.maximum(high - low, 1e-9)
            best = np.zeros(d.shape[1])
            for row in d:
                before = np.concatenate([[np.inf, np.inf], best])
                best = row + np.minimum(np.minimum(before[2:], before[1:-1]), before[:-2])
            scores[i, k] = -best.min() / len(query)
    scores[[len(query) < 5 for query in queries]] = 0
    return (scores - scores.mean(1, keepdims=True)) / np.maximum(scores.std(1, keepdims=True), 1e-9)


def test_scores_are_the_protocols() -> None:
    lengths = [12, 4, 25, 40, 33, 1, 90]
    frames = features(lengths)
    rows = build().search(a_split(3, 4), frames, "cosine_exp", "cpu")
    plain = [f.double().numpy() for f in frames]
    expected = by_the_protocol(plain[:3], plain[3:])
    np.testing.assert_allclose([float(r.answer) for r in rows], expected.ravel(), atol=6e-5)
    assert [r.id for r in rows[:5]] == ["q0 d0", "q0 d1", "q0 d2", "q0 d3", "q1 d0"]
    assert rows[0].truth == "1" and len(rows[0].answer.partition(".")[2]) == 4
    assert {float(r.answer) for r in rows if r.id.startswith("q1")} == {0}, "four frames are not searched for"


def test_a_short_query_is_remarked_on_and_no_failure() -> None:
    (remark,) = build().remarks(a_split(3, 4), [12, 4, 25, 40, 33, 1, 90])
    assert remark == "dev: query 'q1' has 4 frames, fewer than 5: scored 0 everywhere"
    assert build(shortest=13).remarks(a_split(1, 1), [12, 3])
    assert not build().remarks(a_split(1, 1), [5, 1])


def test_only_documents_of_a_querys_trials_count_in_normalising() -> None:
    scores = np.array([[1.0, 3.0, 99.0], [5.0, 5.0, 5.0]])
    in_trials = np.array([[True, True, False], [True, True, True]])
    np.testing.assert_allclose(normalise_per_query(scores, in_trials)[0, :2], [-1, 1])
    np.testing.assert_allclose(normalise_per_query(scores, in_trials)[1], 0)
    trials = [Trial("q0", "d0", True), Trial("q0", "d2", False)]
    rows = build().search(a_split(1, 3, trials), features([8, 30, 30, 30]), "cosine_exp", "cpu")
    assert sorted(abs(float(r.answer)) for r in rows) == [1, 1]


def test_documents_that_are_not_searched_count_at_the_default_score() -> None:
    trials = [*a_split(1, 3).trials, Trial("q0", "", True, 1), Trial("q0", "", False, 6)]
    trials += [Trial("x", "", True, 4), Trial("x", "", False, 5)]
    task = build(p_target=0.5, c_miss=1.0)
    rows = task.search(a_split(1, 3, trials), features([8, 30, 30, 30]), "cosine_exp", "cpu")
    assert rows[3:] == [
        Prediction("q0 *1", "1", "-10.0000"),
        Prediction("q0 *6", "0", "-10.0000"),
        Prediction("x *4", "1", "-10.0000"),
        Prediction("x *5", "0", "-10.0000"),
    ]
    rows = [Prediction("q0 d0", "1", "3"), Prediction("q0 d1", "0", "4"), Prediction("q0 d2", "0", "-1"), *rows[3:]]
    (score,) = task.score(rows)
    # q0: one of two targets found, one of eight others with it; x is always missed.
    assert score.value == pytest.approx(100 * (0.5 - 1 / 8) / 2)
    assert score.units == 2 and score.strata is not None and score.strata.tolist() == [1, 0]
    assert "*" not in as_stdlist(rows) and as_stdlist(rows).count("<term ") == 3


def test_chance_is_that_of_random_scores() -> None:
    task = build()
    rows = [Prediction(f"q{i} d{k}", str(int(i == k % 20)), "0") for i in range(20) for k in range(200)]
    assert 0 <= task.chance(rows) < 2
    right = [replace_answer(row) for row in rows]
    assert task.score(right)[0].value == pytest.approx(100)
    assert task.chance(right) == task.chance(rows)


def replace_answer(row: Prediction) -> Prediction:
    return row._replace(answer=row.truth)


def test_ways_are_the_recipes_distance_and_the_others_of_it() -> None:
    assert build().ways() == ("cosine_exp",)
    assert build(distance="cosine", also=("euclidean", "cosine")).ways() == ("cosine", "euclidean")
    with pytest.raises(ValidationError, match="cosine_exp"):
        QuerySettings(distance="manhattan")  # type: ignore[arg-type]


def test_it_is_a_search_that_needs_every_frame() -> None:
    kind = registry.get("qbe")
    assert issubclass(kind, SearchTask) and not kind.pooled
    assert kind.learn(None, None) is None  # type: ignore[arg-type]


def test_a_query_with_no_target_is_left_out() -> None:
    task = build()
    rows = [Prediction("a d", "1", "1"), Prediction("a e", "0", "0"), Prediction("b d", "0", "9")]
    assert task.score(rows)[0].units == 1
    assert task.score(rows)[0].value == 100
