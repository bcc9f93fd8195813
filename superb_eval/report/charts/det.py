"""Detection error trade-offs of trials: misses against false alarms, at every threshold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import altair as alt
import numpy as np
from numpy.typing import NDArray

from downstreams.base import Prediction
from superb_eval.report.charts.figure import (
    DataRow,
    Figure,
    chart_of,
    figure,
    tips,
    upstream_colour,
    upstream_shape,
)

PERCENT = (0.1, 1.0, 5.0, 20.0, 40.0, 60.0, 80.0, 95.0)
"""Ticks of both axes, in %."""

MOST_POINTS = 200


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


def det(key: str, task: str, predictions: Mapping[str, Sequence[Prediction]], names: Sequence[str]) -> Figure:
    """Return the trade-off of each upstream, on axes on which normal scores give straight lines."""
    curves = {name: trade_off(*_trials(rows)) for name, rows in predictions.items()}
    lines = [row for name, curve in curves.items() for row in _rows(name, curve, _thinned(curve))]
    equal = [row for name, curve in curves.items() for row in _rows(name, curve, [curve.equal_error_index()])]
    base = chart_of("curves").encode(
        x=alt.X("x:Q", title="false alarms, %", axis=_axis(), scale=_scale()),
        y=alt.Y("y:Q", title="misses, %", axis=_axis(), scale=_scale()),
        color=upstream_colour(names),
    )
    tooltip = tips(upstream="upstream", alarms="false alarms, %", misses="misses, %")
    points = chart_of("equal").mark_point(filled=True, size=75, opacity=1)
    ends = [{"x": _normal_deviate(p), "y": _normal_deviate(p)} for p in (PERCENT[0], PERCENT[-1])]
    layers = [
        chart_of("diagonal").mark_line(color="var(--rule)").encode(x=alt.X("x:Q"), y=alt.Y("y:Q")),
        base.mark_line(strokeWidth=1.5).encode(order=alt.Order("order:Q"), tooltip=tooltip),
        points.encode(
            x=alt.X("x:Q"), y=alt.Y("y:Q"), color=upstream_colour(names), shape=upstream_shape(names), tooltip=tooltip
        ),
    ]
    return figure(
        alt.LayerChart(layer=layers).properties(height=320),
        {"curves": lines, "equal": equal, "diagonal": ends},
        key,
        f"{task.upper()}: misses against false alarms",
        "A line for each upstream.",
        (
            ("upstream", "false alarms, %", "misses, %"),
            [row for name, curve in curves.items() for row in _table_rows(name, curve)],
        ),
        "Every threshold of the scores of the test trials; marked where both errors are nearest to equal. Axes follow "
        "the normal distribution.",
    )


def _trials(rows: Sequence[Prediction]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    return np.array([row.truth == "1" for row in rows]), np.array([float(row.answer) for row in rows])


def _rows(name: str, curve: TradeOffCurve, indices: Sequence[int]) -> Iterator[DataRow]:
    for order, k in enumerate(indices):
        alarms, misses = float(curve.alarms[k]), float(curve.misses[k])
        yield {
            "upstream": name,
            "x": _normal_deviate(alarms),
            "y": _normal_deviate(misses),
            "order": order,
            "alarms": f"{alarms:.2f}",
            "misses": f"{misses:.2f}",
        }


def _axis() -> alt.Axis:
    """Ticks at round percentages on an axis of normal deviates."""
    values = [_normal_deviate(percent) for percent in PERCENT]
    texts = [f"{percent:g}" for percent in PERCENT]
    return alt.Axis(values=values, labelExpr=f"{texts}[indexof({values}, datum.value)]", grid=True)


def _scale() -> alt.Scale:
    return alt.Scale(domain=[_normal_deviate(PERCENT[0]), _normal_deviate(PERCENT[-1])], nice=False, zero=False)


def _normal_deviate(percent: float) -> float:
    from scipy import stats

    return round(float(stats.norm.ppf(min(max(percent, PERCENT[0]), PERCENT[-1]) / 100)), 4)


def _thinned(curve: TradeOffCurve) -> list[int]:
    indices: list[int] = np.unique(np.linspace(0, len(curve.alarms) - 1, MOST_POINTS).round().astype(int)).tolist()
    return indices


def _table_rows(name: str, curve: TradeOffCurve) -> Iterator[tuple[str, str, str]]:
    """The misses at a few rates of false alarms."""
    for most in PERCENT[1:5]:
        (within,) = np.nonzero(curve.alarms <= most)
        if len(within):
            yield name, f"{curve.alarms[within[-1]]:.2f}", f"{curve.misses[within[-1]]:.2f}"
