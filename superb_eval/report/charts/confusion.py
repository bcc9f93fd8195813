"""Charts of errors: confusion matrices where an utterance has one label, detection error trade-offs of trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from downstreams.base import Prediction
from superb_eval.report.charts import heatmap, svg
from superb_eval.report.charts.comparison import Palette
from superb_eval.report.charts.heatmap import Matrix
from superb_eval.report.charts.svg import Box

MOST_LABELS = 40
"""With more labels a matrix is unreadable: the most frequent confusions are listed instead."""

MOST_PAIRS = 20

PERCENT = (0.1, 1.0, 5.0, 20.0, 40.0, 60.0, 80.0, 95.0)
"""Ticks of a detection error trade-off, in %."""

MOST_POINTS = 300


def confusion(key: str, name: str, task: str, rows: Sequence[Prediction]) -> svg.Figure:
    """Return the confusion matrix: rows are the truth, in percent of that label's utterances."""
    counts = Counter((row.truth, row.answer) for row in rows)
    labels = sorted({label for pair in counts for label in pair})
    title = f"{task.upper()} confusions: {name}"
    if len(labels) > MOST_LABELS:
        return _most_frequent(key, title, counts)
    totals = Counter(row.truth for row in rows)
    values = tuple(
        tuple(100 * counts[truth, answer] / totals[truth] if counts[truth, answer] else None for answer in labels)
        for truth in labels
    )
    names = tuple(labels)
    matrix = Matrix(names, names, values, full=100, format=".0f", down="truth", across="predicted")
    return heatmap.figure(key, title, "", matrix)


def _most_frequent(key: str, title: str, counts: Mapping[tuple[str, str], int]) -> svg.Figure:
    wrong = sorted(((n, *pair) for pair, n in counts.items() if pair[0] != pair[1]), key=lambda c: (-c[0], c[1:]))
    shown = wrong[:MOST_PAIRS]
    box = Box(200, 20, 330, 20 + 18 * len(shown))
    across = svg.linear(0, max((n for n, *_ in shown), default=1), box.left, box.right)
    parts = []
    for k, (n, truth, answer) in enumerate(shown):
        y = box.top + 18 * k
        parts.append(
            svg.text(box.left - 8, y + 12, f"{svg.shortened(truth, 12)} → {svg.shortened(answer, 12)}", "end", "tick")
        )
        parts.append(
            svg.tag(
                "rect",
                svg.tag("title", f"{truth} predicted as {answer}: {n}"),
                x=box.left,
                y=y + 3,
                width=across(n) - box.left,
                height=12,
                class_="bar",
            )
        )
    parts.append(box.across(across, svg.ticks(0, max((n for n, *_ in shown), default=1), 4), "utterances"))
    note = f"The {len(shown)} most frequent of {len(wrong)} kinds of confusion: truth → predicted."
    return svg.Figure(
        key=key,
        title=title,
        note=note,
        svg=svg.chart(key, title, note, (344, box.bottom + 40), *parts),
        headings=("truth", "predicted", "utterances"),
        rows=tuple((truth, answer, str(n)) for n, truth, answer in shown),
    )


class TradeOffCurve(NamedTuple):
    """False alarms and misses, in %, at each threshold (scores at or above it are accepted), highest first."""

    alarms: NDArray[np.float64]
    misses: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    def equal_error_index(self) -> int:
        """Return the index at which both errors are nearest to equal."""
        return int(np.argmin(np.abs(self.alarms - self.misses)))


def trade_off(target: NDArray[np.bool_], scores: NDArray[np.float64]) -> TradeOffCurve:
    """Return the curve of trials [trials]: target trials should have the higher scores."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.nonzero(np.diff(scores[order]))[0], len(scores) - 1)
    hits, alarms = np.cumsum(target[order])[ends], np.cumsum(~target[order])[ends]
    misses = 100 * (1 - hits / max(1, target.sum()))
    return TradeOffCurve(100 * alarms / max(1, (~target).sum()), misses, scores[order][ends])


def det(key: str, task: str, predictions: Mapping[str, Sequence[Prediction]], palette: Palette) -> svg.Figure:
    """Return the detection error trade-off of each upstream, on axes on which normal scores give straight lines."""
    box = Box(48, 30, 330, 312)
    low, high = _normal_deviate(PERCENT[0]), _normal_deviate(PERCENT[-1])
    horizontal, vertical = svg.linear(low, high, box.left, box.right), svg.linear(low, high, box.bottom, box.top)

    def across(percent: float) -> float:
        return horizontal(_normal_deviate(percent))

    def up(percent: float) -> float:
        return vertical(_normal_deviate(percent))

    curves = {name: trade_off(*_trials(rows)) for name, rows in predictions.items()}
    parts = [box.up(up, PERCENT, "misses, %"), box.across(across, PERCENT, "false alarms, %")]
    parts.append(svg.line(box.left, box.bottom, box.right, box.top, "grid"))
    parts += [_curve(name, curve, across, up, palette[name]) for name, curve in curves.items()]
    title = f"{task.upper()}: misses against false alarms"
    return svg.Figure(
        key=key,
        title=title,
        note="Every threshold of the scores of the test trials; marked where both errors are nearest to equal. Axes "
        "follow the normal distribution.",
        svg=svg.chart(key, title, "A line for each upstream.", (344, box.bottom + 40), *parts),
        headings=("upstream", "false alarms, %", "misses, %"),
        rows=tuple(row for name, curve in curves.items() for row in _table_rows(name, curve)),
    )


def _trials(rows: Sequence[Prediction]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    return np.array([row.truth == "1" for row in rows]), np.array([float(row.answer) for row in rows])


def _curve(name: str, curve: TradeOffCurve, across: svg.Scale, up: svg.Scale, series: int) -> Markup:
    k = curve.equal_error_index()
    hint = f"{name}: {curve.alarms[k]:.2f} % false alarms, {curve.misses[k]:.2f} % misses"
    course = svg.path([(across(a), up(m)) for a, m in _thinned(curve)], f"course {svg.series_class(series)}", name)
    return course + svg.mark(across(float(curve.alarms[k])), up(float(curve.misses[k])), series, hint)


def _normal_deviate(percent: float) -> float:
    from scipy import stats

    return float(stats.norm.ppf(min(max(percent, PERCENT[0]), PERCENT[-1]) / 100))


def _thinned(curve: TradeOffCurve) -> Iterator[tuple[float, float]]:
    indices = np.unique(np.linspace(0, len(curve.alarms) - 1, MOST_POINTS).round().astype(int))
    yield from zip(curve.alarms[indices].tolist(), curve.misses[indices].tolist(), strict=True)


def _table_rows(name: str, curve: TradeOffCurve) -> Iterator[tuple[str, str, str]]:
    """The misses at a few rates of false alarms."""
    for most in PERCENT[1:5]:
        (within,) = np.nonzero(curve.alarms <= most)
        if len(within):
            yield name, f"{curve.alarms[within[-1]]:.2f}", f"{curve.misses[within[-1]]:.2f}"
