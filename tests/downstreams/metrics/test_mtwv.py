"""MTWV against a sweep of every threshold, and the file of the official scorer."""

from __future__ import annotations

from collections import defaultdict
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downstreams.metrics.mtwv import Detections, beta, mtwv_curve, stdlist

Trial = tuple[str, float, bool, int]


def answers(trials: list[Trial]) -> Detections:
    names = sorted({t[0] for t in trials})
    return Detections(
        names,
        np.array([names.index(t[0]) for t in trials]),
        np.array([t[1] for t in trials]),
        np.array([t[2] for t in trials]),
        np.array([float(t[3]) for t in trials]),
    )


def swept(trials: list[Trial], cost: float, queries: list[str] | None = None) -> float:
    """The definition, threshold by threshold: 1 - mean over queries of P_miss + beta P_fa, at its best."""
    by_query = defaultdict(list)
    for query, score, target, count in trials:
        by_query[query] += [(score, target)] * count
    chosen = queries or [q for q, those in by_query.items() if any(t for _, t in those)]
    values = []
    for threshold in {score for _, score, _, _ in trials} | {np.inf}:
        losses = []
        for query in chosen:
            targets = [s for s, t in by_query[query] if t]
            others = [s for s, t in by_query[query] if not t]
            miss = sum(s < threshold for s in targets) / len(targets)
            false_alarm = sum(s >= threshold for s in others) / max(1, len(others))
            losses.append(miss + cost * false_alarm)
        values.append(1 - np.mean(losses))
    return float(max(values))


trial = st.tuples(st.sampled_from("abcd"), st.integers(-3, 6).map(float), st.booleans(), st.integers(1, 3))


@settings(max_examples=400, deadline=None)
@given(st.lists(trial, min_size=1, max_size=25), st.sampled_from([0.3, 1.0, 12.49]))
def test_the_maximum_is_that_of_a_sweep(trials: list[Trial], cost: float) -> None:
    if not any(t[2] for t in trials):
        with pytest.raises(ValueError, match="no query has a target"):
            mtwv_curve(answers(trials), cost)
        return
    twv = mtwv_curve(answers(trials), cost)
    assert twv.maximum(np.ones(len(twv.names))) == pytest.approx(swept(trials, cost), abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.lists(trial, min_size=1, max_size=25), st.integers(0, 2**31))
def test_a_resample_of_queries_has_its_own_best_threshold(trials: list[Trial], seed: int) -> None:
    if not any(t[2] for t in trials):
        return
    twv = mtwv_curve(answers(trials), 2.0)
    chosen = np.random.default_rng(seed).integers(0, len(twv.names), len(twv.names))
    expected = swept(trials, 2.0, [twv.names[i] for i in chosen])
    weights = np.bincount(chosen, minlength=len(twv.names)).astype(np.float64)
    assert twv.maximum(weights) == pytest.approx(expected, abs=1e-9)


def test_extremes() -> None:
    perfect: list[Trial] = [("a", 2.0, True, 1), ("a", 1.0, False, 9), ("b", 3.0, True, 1), ("b", 0.0, False, 9)]
    everything = np.ones(2)
    assert mtwv_curve(answers(perfect), 12.49).maximum(everything) == pytest.approx(1)
    inverted = [(q, -s, t, n) for q, s, t, n in perfect]
    assert mtwv_curve(answers(inverted), 12.49).maximum(everything) == 0, "detecting nothing is always possible"
    assert mtwv_curve(answers([("a", 0.0, True, 1), ("a", 0.0, False, 1)]), 0.25).maximum(np.ones(1)) == pytest.approx(
        0.75
    )


def test_a_false_alarm_costs_as_in_the_protocol() -> None:
    """protocol: P_target 0.0008, C_fa 1, C_miss 100; an effective prior of 0.0741289 is the same."""
    assert beta(0.0008, 1, 100) == pytest.approx(12.49)
    assert beta(0.0741289, 1, 1) == pytest.approx(12.49, rel=1e-5)


def test_the_scorers_file_has_the_protocols_form() -> None:
    text = stdlist([("q1", "d1", 2.00004), ("q1", "d<2>", -0.5), ("q2", "d1", 2.0)])
    root = ElementTree.fromstring(text)
    assert text.startswith("<?xml")
    assert root.tag == "stdlist" and root.attrib == {
        "termlist_filename": "benchmark.stdlist.xml",
        "indexing_time": "1.00",
        "language": "english",
        "index_size": "1",
        "system_id": "benchmark",
    }
    assert [t.attrib for t in root] == [
        {"termid": q, "term_search_time": "1.0", "oov_term_count": "1"} for q in ("q1", "q2")
    ]
    common = {"channel": "1", "tbeg": "0.000", "dur": "0.00"}
    assert [t.attrib for t in root.iter("term")] == [
        {"file": "d1", **common, "score": "2.0000", "decision": "YES"},
        {"file": "d<2>", **common, "score": "-0.5000", "decision": "NO"},
        {"file": "d1", **common, "score": "2.0000", "decision": "NO"},
    ]
