"""Charts of training: dev metric and loss by update, and the best dev metric by learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from downstreams import registry
from superb_eval.errors import UserError
from superb_eval.report.charts import svg
from superb_eval.report.charts.comparison import Palette
from superb_eval.report.charts.svg import Box
from superb_eval.results.folder import RunGroup
from superb_eval.results.record import RateRecord

MOST_POINTS = 200
"""Points drawn of a curve; the record holds them all."""


@dataclass(frozen=True)
class LearningCurve:
    """One training: of a fold, a seed and a learning rate. `chosen`: its head was tested."""

    name: str
    fold: int
    seed: int
    rate: RateRecord
    chosen: bool


def curves(groups: dict[str, RunGroup]) -> list[LearningCurve]:
    """Return the learning curves of one task, by upstream."""
    return [
        LearningCurve(name, fold.fold, run.record.seed, rate, rate.lr == fold.lr)
        for name, group in groups.items()
        for run in group.runs
        for fold in run.record.training
        for rate in fold.rates
    ]


def figures(key: str, task: str, groups: dict[str, RunGroup], palette: Palette) -> list[svg.Figure]:
    """Return the charts of one task's trainings; empty where nothing was trained."""
    trained = [curve for curve in curves(groups) if curve.rate.curve]
    if not trained:
        return []
    dev, loss = f"{task.upper()}: {_criterion(task)} on dev", f"{task.upper()}: training loss"
    charts = [
        _by_step(f"{key}-dev", dev, "dev", trained, palette),
        _by_step(f"{key}-loss", loss, "loss", trained, palette),
    ]
    if any(len({c.rate.lr for c in trained if c.name == name}) > 1 for name in groups):
        charts.append(_by_rate(f"{key}-lr", task, trained, palette))
    return charts


def _criterion(task: str) -> str:
    """What chose the checkpoint on dev, with its direction; the task may be none of this version."""
    try:
        kind = registry.get(task)
    except UserError:
        return "figure"
    metric = getattr(kind, "criterion", None) or kind.metrics[0]
    return f"{metric.heading} {metric.unit} {'↑' if metric.higher_is_better else '↓'}"


def _by_step(
    key: str, title: str, quantity: str, learning_curves: Sequence[LearningCurve], palette: Palette
) -> svg.Figure:
    box = Box(48, 22, 330, 170)
    across, up = _scales(
        box, [(p["step"], p[quantity]) for c in learning_curves for p in c.rate.curve if quantity in p]
    )
    values = [p[quantity] for c in learning_curves for p in c.rate.curve]
    parts = [
        box.up(up, svg.ticks(min(values), max(values), 4), ""),
        box.across(across, _steps(learning_curves), "updates"),
    ]
    for c in sorted(learning_curves, key=lambda c: c.chosen):
        points = [(across(p["step"]), up(p[quantity])) for p in _thinned(c.rate.curve)]
        kind = f"course thin {svg.series_class(palette[c.name])}{'' if c.chosen else ' faint'}"
        parts.append(svg.path(points, kind, _name(c)))
        if c.chosen and len(points) < 25:
            parts += [svg.mark(x, y, palette[c.name]) for x, y in points[-1:]]
    return svg.Figure(
        key=key,
        title=title,
        note="",
        svg=svg.chart(key, title, "One line for each training.", (344, box.bottom + 40), *parts),
        headings=("training", "first", "last", "updates"),
        rows=tuple(
            (_name(c), f"{c.rate.curve[0][quantity]:.3f}", f"{c.rate.curve[-1][quantity]:.3f}", str(c.rate.steps))
            for c in learning_curves
        ),
    )


def _by_rate(key: str, task: str, learning_curves: Sequence[LearningCurve], palette: Palette) -> svg.Figure:
    box = Box(48, 22, 330, 170)
    rates = [c.rate.lr for c in learning_curves]
    best = [c.rate.best_dev for c in learning_curves]
    across = svg.logarithmic(min(rates) / 1.5, max(rates) * 1.5, box.left, box.right)
    up = svg.linear(min(best), max(best), box.bottom - 6, box.top + 6)
    parts = [
        box.up(up, svg.ticks(min(best), max(best), 4), ""),
        box.across(across, svg.decades(min(rates), max(rates)), "learning rate"),
    ]
    for group in _grouped(learning_curves, lambda c: (c.name, c.fold, c.seed)):
        points = sorted((c.rate.lr, c.rate.best_dev, c) for c in group)
        parts.append(
            svg.path(
                [(across(lr), up(dev)) for lr, dev, _ in points],
                f"course thin {svg.series_class(palette[group[0].name])}",
            )
        )
        parts += [
            svg.mark(across(lr), up(dev), palette[c.name], f"{_name(c)}: {dev:.2f}", hollow=not c.chosen)
            for lr, dev, c in points
        ]
    title = f"{task.upper()}: best {_criterion(task)} on dev by learning rate"
    note = "Filled: the rate chosen on dev; its head was tested."
    return svg.Figure(
        key=key,
        title=title,
        note=note,
        svg=svg.chart(key, title, note, (344, box.bottom + 40), *parts),
        headings=("training", "best on dev", "at update", "tested"),
        rows=tuple(
            (_name(c), f"{c.rate.best_dev:.2f}", str(c.rate.best_step), "yes" if c.chosen else "no")
            for c in learning_curves
        ),
    )


def _name(c: LearningCurve) -> str:
    return f"{c.name}, fold {c.fold}, seed {c.seed}, lr {c.rate.lr:g}"


def _scales(box: Box, points: Iterable[tuple[float, float]]) -> tuple[svg.Scale, svg.Scale]:
    xs, ys = zip(*points, strict=True)
    return svg.linear(0, max(xs), box.left, box.right), svg.linear(min(ys), max(ys), box.bottom - 6, box.top + 6)


def _steps(learning_curves: Sequence[LearningCurve]) -> list[float]:
    return svg.ticks(0, max(c.rate.steps for c in learning_curves), 4)


def _thinned(curve: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    step = max(1, len(curve) // MOST_POINTS)
    return [*curve[::step], *([curve[-1]] if (len(curve) - 1) % step else [])]


def _grouped(
    learning_curves: Sequence[LearningCurve], by: Callable[[LearningCurve], tuple[object, ...]]
) -> list[list[LearningCurve]]:
    groups: dict[tuple[object, ...], list[LearningCurve]] = {}
    for curve in learning_curves:
        groups.setdefault(by(curve), []).append(curve)
    return list(groups.values())
