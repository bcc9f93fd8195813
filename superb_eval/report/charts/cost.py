"""Quality against cost, with the Pareto front of the upstreams."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from superb_eval.report.charts.figure import (
    DataRow,
    Figure,
    chart_of,
    figure,
    tips,
    upstream_colour,
    upstream_shape,
)
from superb_eval.report.markup import linear
from superb_eval.report.verdicts import short_name, task_columns
from superb_eval.results.table import costs, totals
from superb_eval.results.table.result_table import Cell, Column, ResultTable, Row

HEIGHT = 230


@dataclass(frozen=True)
class Point:
    """An upstream's quality and cost."""

    name: str
    cost: float
    cell: Cell


@dataclass(frozen=True)
class CostAxis:
    """A cost: its key in tables and in `superb-eval cost`'s file, what its axis measures, how figures are printed."""

    key: str
    title: str
    format: str


OF_UPSTREAMS = (
    CostAxis(costs.PARAMETERS.key[1], "parameters, millions", ".2f"),
    CostAxis(costs.MACS.key[1], "GMAC per second of audio", ".3g"),
    CostAxis("real_time_factor", "real-time factor", ".3g"),
)

OF_EVALUATION = (
    CostAxis(costs.TIME.key[1], "evaluation, minutes", ".1f"),
    CostAxis(costs.MEMORY.key[1], "peak memory, GB", ".2f"),
)


def figures(key: str, table: ResultTable, measured: costs.Costs) -> Iterator[Figure]:
    """Yield overall quality against each cost that was measured; by task where no overall figure is defined.

    `measured` is what `superb-eval cost` stored.
    """
    overall = [c for c in table.columns if c.key in (totals.SUPERB_S.key, totals.MEAN.key)]
    shown = [c for c in overall if sum(c.key in row.cells for row in table.rows) > 1]
    first = {column.key[0]: column for column in reversed(task_columns(table))}
    pairs = [(c, axis) for c in shown for axis in (*OF_UPSTREAMS, *OF_EVALUATION)]
    pairs = pairs or [(c, axis) for c in reversed(first.values()) for axis in OF_UPSTREAMS]
    for column, axis in pairs:
        points = [
            Point(row.name, cost, cell)
            for row in table.rows
            if (cell := row.cells.get(column.key)) and (cost := _cost(row, axis.key, measured)) is not None
        ]
        name = "-".join(filter(None, (*column.key, axis.key))).replace("_", "-")
        if len(points) > 1:
            yield against_cost(f"{key}-cost-{name}", points, column, axis, [row.name for row in table.rows])


def _cost(row: Row, key: str, measured: costs.Costs) -> float | None:
    cell = row.cells.get(("", key))
    return cell.value if cell else measured.get(row.name, {}).get(key)


def against_cost(key: str, points: Sequence[Point], column: Column, axis: CostAxis, names: Sequence[str]) -> Figure:
    """Return quality against cost with the Pareto front; `names` are those of all upstreams.

    Costs go up in decades; 0 is at the left edge.
    """
    zero = _zero([p.cost for p in points])
    on_front = {p.name for p in front(points, column)}
    rows = [_row(p, column, axis, zero, p.name in on_front) for p in points]
    rows = [{**row, **_placed(side)} for row, side in zip(rows, label_sides(rows), strict=True)]
    x = alt.X(
        "cost:Q",
        title=axis.title,
        scale=alt.Scale(type="log", domain=_across(rows), nice=False),
        axis=_ticks(rows, zero),
    )
    y = alt.Y("value:Q", title=column.title(), scale=_up(rows, column), axis=alt.Axis(tickCount=5))
    base = chart_of("points").encode(x=x, y=y, color=upstream_colour(names).legend(None))
    tooltip = tips(upstream="upstream", figure="figure", cost_text="cost", front="on the front")
    layers = [
        _front_line(x, y),
        _labels(stroke="var(--paper)", strokeWidth=4, strokeJoin="round"),  # a halo that keeps lines off
        base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(
            y=alt.Y("low:Q", scale=_up(rows, column)), y2=alt.Y2("high:Q")
        ),
        base.mark_point(filled=True, size=75, opacity=1).encode(
            shape=upstream_shape(names).legend(None), tooltip=tooltip
        ),
        _labels(),
    ]
    heading = short_name(column) if column.key[0] else column.heading
    texts = [
        (p.name, format(p.cost, axis.format), *p.cell.texts(column)[:2], row["front"])
        for p, row in zip(points, rows, strict=True)
    ]
    return figure(
        alt.LayerChart(layer=layers).properties(height=HEIGHT),
        {"points": rows, "front": _front_steps(rows)},
        key,
        f"{heading} against {axis.title}",
        "A point for each upstream with its 95 % interval, better on top.",
        (("upstream", axis.title, column.title(), "interval", "on the front"), texts),
    )


def front(points: Sequence[Point], column: Column) -> list[Point]:
    """Return the points that no other one equals in quality at the same or lower cost."""
    sign = 1 if column.higher_is_better else -1

    def dominated(p: Point) -> bool:
        at_least = [q for q in points if q is not p and q.cost <= p.cost and sign * (q.cell.value - p.cell.value) >= 0]
        return any((q.cost, q.cell.value) != (p.cost, p.cell.value) for q in at_least)

    return [p for p in points if not dominated(p)]


def _row(p: Point, column: Column, axis: CostAxis, zero: float, on_front: bool) -> DataRow:
    low, high = (p.cell.value if end is None or not math.isfinite(end) else end for end in (p.cell.low, p.cell.high))
    return {
        "upstream": p.name,
        "cost": max(p.cost, zero),
        "value": p.cell.value,
        "low": low,
        "high": high,
        "figure": " ".join(filter(None, p.cell.texts(column)[:2])),
        "cost_text": format(p.cost, axis.format),
        "front": "yes" if on_front else "no",
    }


def _zero(costs_of_points: Sequence[float]) -> float:
    """Where a cost of 0 stands on a logarithmic axis: a bit left of the least above it."""
    above = [cost for cost in costs_of_points if cost > 0]
    return min(above) / max(4.0, (max(above) / min(above)) ** 0.3) if above else 1.0


def _ends(rows: Sequence[DataRow], low: str, high: str) -> tuple[float, float]:
    return min(row[low] for row in rows), max(row[high] for row in rows)


def _across(rows: Sequence[DataRow]) -> tuple[float, float]:
    """The ends of the axis of cost, with a margin for the marks."""
    low, high = _ends(rows, "cost", "cost")
    margin = max((high / low) ** 0.08, 1.25)
    return low / margin, high * margin


def _up(rows: Sequence[DataRow], column: Column) -> alt.Scale:
    """The axis of quality, the better end on top."""
    low, high = _ends(rows, "low", "high")
    margin = (high - low) * 0.06 or 1.0
    return alt.Scale(domain=[low - margin, high + margin], nice=False, zero=False, reverse=not column.higher_is_better)


def _ticks(rows: Sequence[DataRow], zero: float) -> alt.Axis:
    """Ticks at round figures in range: the fewest of three grids that are three at least; at 0 where a cost is."""
    low, high = _ends(rows, "cost", "cost")
    least = min((row["cost"] for row in rows if row["cost"] > zero), default=low)
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), range(1, 10)):
        found = [step * 10.0**power for power in powers for step in steps]
        values = [value for value in found if least * 0.9 <= value <= high * 1.1]
        if len(values) > 2:
            break
    values += [zero] if low <= zero else []
    text = f"datum.value <= {zero!r} ? '0' : format(datum.value, '~r')"
    return alt.Axis(values=sorted(values), labelExpr=text, grid=False, labelOverlap=True)


def _front_line(x: alt.X, y: alt.Y) -> alt.Chart:
    line: alt.Chart = chart_of("front").mark_line(
        interpolate="step-after", color="var(--muted)", strokeWidth=1.2, strokeDash=[3, 3]
    )
    return line.encode(x=x, y=y)


def _front_steps(rows: Sequence[DataRow]) -> list[DataRow]:
    """The points of the front, from left to right, and its end at the right of the axis."""
    points = sorted((row for row in rows if row["front"] == "yes"), key=lambda row: row["cost"])
    end = {**points[-1], "cost": _across(rows)[1]}
    return [{name: row[name] for name in ("cost", "value")} for row in [*points, end]]


def _labels(**look: Any) -> alt.Chart:
    """The names of upstreams, each beside its mark."""
    align, dx, dy = (alt.ExprRef(f"datum.{name}") for name in ("align", "dx", "dy"))
    text: alt.Chart = chart_of("points").mark_text(align=align, dx=dx, dy=dy, limit=170, **look)
    return text.encode(x=alt.X("cost:Q"), y=alt.Y("value:Q"), text=alt.Text("upstream:N"))


ALIGN: Mapping[str, Literal["left", "right"]] = {
    "right": "left",
    "left": "right",
    "above right": "left",
    "above left": "right",
    "below right": "left",
    "below left": "right",
}
SHIFTS = {
    "right": (8, 0),
    "left": (-8, 0),
    "above right": (-4, -12),
    "above left": (4, -12),
    "below right": (-4, 13),
    "below left": (4, 13),
}
"""Where a label is put beside a mark, in CSS pixels; downwards is positive."""


def _placed(side: str) -> DataRow:
    return {"align": ALIGN[side], "dx": SHIFTS[side][0], "dy": SHIFTS[side][1]}


LETTER, LINE, WIDTH = 6.4, 12.0, 270.0
"""Size of a letter of a label, and the usual width of a chart without its axis, in CSS pixels."""


def label_sides(rows: Sequence[DataRow]) -> list[str]:
    """Return on which side of its mark each label stands: inside the chart, on no mark and no other label."""
    spots = _spots(rows)
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in spots]
    sides = []
    for (x, y), row in zip(spots, rows, strict=True):
        boxes = {side: _box(x, y, side, str(row["upstream"])) for side in SHIFTS}
        side = min(boxes, key=lambda side: _crowding(boxes[side], taken))
        taken.append(boxes[side])
        sides.append(side)
    return sides


Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in CSS pixels."""


def _spots(rows: Sequence[DataRow]) -> list[tuple[float, float]]:
    """Where marks stand in a chart of the usual width."""
    left, right = (math.log(end) for end in _across(rows))
    across = linear(left, right, 0.0, WIDTH)
    up = linear(*_ends(rows, "low", "high"), 0.94 * HEIGHT, 0.06 * HEIGHT)
    return [(across(math.log(row["cost"])), up(row["value"])) for row in rows]


def _box(x: float, y: float, side: str, name: str) -> Box:
    width = LETTER * min(len(name), 27)
    dx, dy = SHIFTS[side]
    left = x + dx - (width if ALIGN[side] == "right" else 0.0)
    return left, y + dy - LINE / 2, left + width, y + dy + LINE / 2


def _crowding(box: Box, taken: Sequence[Box]) -> float:
    """How much of a label is on others, or outside of the chart, in pixels."""
    left, top, right, bottom = box
    outside = max(0.0, -left) + max(0.0, right - WIDTH) + max(0.0, -top) + max(0.0, bottom - HEIGHT)
    in_line = [other for other in taken if min(bottom, other[3]) > max(top, other[1])]
    return outside + sum(max(0.0, min(right, other[2]) - max(left, other[0])) for other in in_line)
