"""MTWV, the maximum term-weighted value of spoken term detection, and the file that the official scorer reads.

At a threshold t, TWV(t) = 1 - mean over queries of [P_miss(t) + beta P_fa(t)]; MTWV is its maximum over all t. It is 0
for a system that detects nothing and 1 for a perfect one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

DETECTED = 2.0
"""Scores above it, in standard deviations of a query's scores, are detections in the file (protocol)."""


def beta(p_target: float, c_fa: float, c_miss: float) -> float:
    """Return what a false alarm costs in misses, from the prior of a target and both costs."""
    return c_fa / c_miss * (1 / p_target - 1)


@dataclass(frozen=True)
class Detections:
    """What a system detects: `score` [answers] for query `names[query]` in `count` documents with the same truth."""

    names: list[str]
    query: NDArray[np.intp]
    score: NDArray[np.float64]
    target: NDArray[np.bool_]
    count: NDArray[np.float64]


@dataclass(frozen=True)
class MtwvCurve:
    """TWV over all thresholds, ready to be weighted again: queries are what an interval resamples.

    `names` are the queries with at least one target; others have no miss rate, and the official scorer leaves them out
    too. `query` [answers] indexes them, `gain` [answers] is what accepting an answer adds to its query's value; both
    are in descending order of score. `cuts` are the last answers of each score, which are accepted together.
    """

    names: list[str]
    query: NDArray[np.intp]
    gain: NDArray[np.float64]
    cuts: NDArray[np.intp]

    def maximum(self, weights: NDArray[np.float64]) -> float:
        """Return the MTWV where each query counts by its weight [queries]."""
        values = np.cumsum((weights / weights.sum())[self.query] * self.gain)[self.cuts]
        # Accepting nothing has the value 0. Rounding errors must not choose a layer.
        return round(float(values.max(initial=0.0)), 12)


def mtwv_curve(detections: Detections, cost: float) -> MtwvCurve:
    """Return the curve of a system's answers; `cost` is `beta`.

    Raises:
        ValueError: no query has a target.
    """
    targets = np.bincount(detections.query, detections.count * detections.target, minlength=len(detections.names))
    nontargets = np.bincount(detections.query, detections.count * ~detections.target, minlength=len(detections.names))
    has_target = targets > 0
    if not has_target.any():
        raise ValueError("no query has a target")
    order = np.argsort(-detections.score, kind="stable")
    order = order[has_target[detections.query[order]]]
    query, score = detections.query[order], detections.score[order]
    hit, false_alarm = 1 / np.maximum(targets, 1)[query], -cost / np.maximum(nontargets, 1)[query]
    gain = detections.count[order] * np.where(detections.target[order], hit, false_alarm)
    (cuts,) = np.nonzero(np.diff(score, append=-np.inf))
    names = [name for name, has in zip(detections.names, has_target, strict=True) if has]
    return MtwvCurve(names, (np.cumsum(has_target) - 1)[query], gain, cuts)


def stdlist(answers: Iterable[tuple[str, str, float]]) -> str:
    """Return `benchmark.stdlist.xml` for (query, document, score): what the official scorer and submissions take."""
    about = {"termlist_filename": "benchmark.stdlist.xml", "indexing_time": "1.00", "language": "english"}
    root = ElementTree.Element("stdlist", {**about, "index_size": "1", "system_id": "benchmark"})
    lists: dict[str, ElementTree.Element] = {}
    for query, document, score in answers:
        if query not in lists:
            term_list = {"termid": query, "term_search_time": "1.0", "oov_term_count": "1"}
            lists[query] = ElementTree.SubElement(root, "detected_termlist", term_list)
        term = {"file": document, "channel": "1", "tbeg": "0.000", "dur": "0.00", "score": f"{score:.4f}"}
        ElementTree.SubElement(lists[query], "term", term, decision="YES" if score > DETECTED else "NO")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
