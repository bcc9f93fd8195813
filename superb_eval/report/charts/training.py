"""Charts of training: dev metric and loss by update, and the best dev metric by learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from downstreams import registry
from superb_eval.errors import UserError
from superb_eval.report.charts.figure import (
    DataRow,
    Figure,
    chart_of,
    figure,
    tips,
    upstream_colour,
    upstream_scale,
    upstream_shape,
    zoom,
)
from superb_eval.results.folder import RunGroup
from superb_eval.results.record import RateRecord

MOST_POINTS = 200
"""Points drawn of a curve; the record holds them all."""

HEIGHT = 190

TESTED = ["yes", "no"]


@dataclass(frozen=True)
class LearningCurve:
    """One training: of a fold, a seed and a learning rate. `chosen`: its head was tested."""

    name: str
    fold: int
    seed: int
    rate: RateRecord
    chosen: bool

    def label(self) -> str:
        """Return fold, seed and learning rate in words."""
        return f"fold {self.fold}, seed {self.seed}, lr {self.rate.lr:g}"

    def row(self) -> DataRow:
        """Return what each of its rows of data holds."""
        return {"upstream": self.name, "training": self.label(), "tested": TESTED[not self.chosen]}


def curves(groups: dict[str, RunGroup]) -> list[LearningCurve]:
    """Return the learning curves of one task, by upstream."""
    return [
        LearningCurve(name, fold.fold, run.record.seed, rate, rate.lr == fold.lr)
        for name, group in groups.items()
        for run in group.runs
        for fold in run.record.training
        for rate in fold.rates
    ]


def figures(key: str, task: str, groups: dict[str, RunGroup], names: Sequence[str]) -> list[Figure]:
    """Return the charts of one task's trainings; empty where nothing was trained. `names`: all upstreams."""
    trained = [curve for curve in curves(groups) if curve.rate.curve]
    if not trained:
        return []
    criterion = _criterion(task)
    charts = [
        _by_step(f"{key}-dev", f"{task.upper()}: {criterion} on dev", "dev", trained, names),
        _by_step(f"{key}-loss", f"{task.upper()}: training loss", "loss", trained, names),
    ]
    if any(len({c.rate.lr for c in trained if c.name == name}) > 1 for name in groups):
        charts.append(
            _by_rate(f"{key}-lr", f"{task.upper()}: best {criterion} on dev by learning rate", trained, names)
        )
    return charts


def _criterion(task: str) -> str:
    """What chose the checkpoint on dev, with its direction; the task may be none of this version."""
    try:
        kind = registry.get(task)
    except UserError:
        return "figure"
    metric = getattr(kind, "criterion", None) or kind.metrics[0]
    return f"{metric.heading} {metric.unit} {'↑' if metric.higher_is_better else '↓'}"


def _by_step(key: str, title: str, quantity: str, trained: Sequence[LearningCurve], names: Sequence[str]) -> Figure:
    rows = [
        {**c.row(), "step": point["step"], "value": point[quantity], "figure": f"{point[quantity]:.3f}"}
        for c in trained
        for point in _thinned(_points(c, quantity))
    ]
    base = chart_of("points").encode(
        x=alt.X(
            "step:Q", title="updates", scale=alt.Scale(zero=True, nice=False), axis=alt.Axis(tickCount=5, grid=False)
        ),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
        color=upstream_colour(names),
        detail=alt.Detail("training:N"),
        opacity=alt.Opacity("tested:O", scale=alt.Scale(domain=TESTED, range=[1, 0.35])).legend(None),
    )
    marks = base.mark_point(filled=True, size=18, clip=True).encode(
        tooltip=tips(upstream="upstream", training="training", step="update", figure="value", tested="tested")
    )
    chart = (base.mark_line(strokeWidth=1.3, clip=True) + marks).add_params(zoom("view"))
    table = [
        (c.name, c.label(), f"{points[0][quantity]:.3f}", f"{points[-1][quantity]:.3f}", str(c.rate.steps))
        for c in trained
        if (points := _points(c, quantity))
    ]
    headings = ("upstream", "training", "first", "last", "updates")
    return figure(
        chart.properties(height=HEIGHT), {"points": rows}, key, title, "One line for each training.", (headings, table)
    )


def _points(curve: LearningCurve, quantity: str) -> list[dict[str, float]]:
    """Return the points of a curve that have a quantity; somebody may have edited the record."""
    return [point for point in curve.rate.curve if "step" in point and quantity in point]


def _by_rate(key: str, title: str, trained: Sequence[LearningCurve], names: Sequence[str]) -> Figure:
    rows = [
        {**c.row(), "lr": c.rate.lr, "value": c.rate.best_dev, "figure": f"{c.rate.best_dev:.2f}"}
        | {"group": f"{c.fold} {c.seed}", "rate": f"{c.rate.lr:g}"}
        for c in trained
    ]
    base = chart_of("points").encode(
        x=alt.X("lr:Q", title="learning rate", scale=alt.Scale(type="log"), axis=_rate_axis(trained)),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
        color=upstream_colour(names),
    )
    points = base.mark_point(size=50, strokeWidth=1.5).encode(
        shape=upstream_shape(names),
        fill=alt.Fill("upstream:N", scale=upstream_scale(names)).legend(None),
        fillOpacity=alt.FillOpacity("tested:O", scale=alt.Scale(domain=TESTED, range=[1, 0])).legend(None),
        tooltip=tips(upstream="upstream", training="training", figure="best on dev", tested="tested"),
    )
    note = "Filled: the rate chosen on dev; its head was tested."
    table = [
        (c.name, c.label(), f"{c.rate.best_dev:.2f}", str(c.rate.best_step), TESTED[not c.chosen]) for c in trained
    ]
    return figure(
        (base.mark_line(strokeWidth=1.2).encode(detail=alt.Detail("group:N")) + points).properties(height=HEIGHT),
        {"points": rows},
        key,
        title,
        note,
        (("upstream", "training", "best on dev", "at update", "tested"), table),
        note,
    )


def _rate_axis(trained: Sequence[LearningCurve]) -> alt.Axis:
    """Ticks at the rates that were tried: there are few."""
    values = sorted({c.rate.lr for c in trained})
    return alt.Axis(values=values, format="~g", grid=False, labelOverlap=True)


def _thinned(curve: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    step = max(1, len(curve) // MOST_POINTS)
    return [*curve[::step], *(curve[-1:] if (len(curve) - 1) % step else [])]
