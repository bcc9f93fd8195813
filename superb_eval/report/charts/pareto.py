"""Quality against cost, with the Pareto front of the upstreams."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from superb_eval.report.charts import comparison, svg
from superb_eval.report.charts.comparison import Palette
from superb_eval.report.charts.svg import Box
from superb_eval.results.table import costs, totals
from superb_eval.results.table.result_table import Cell, Column, ResultTable, Row


@dataclass(frozen=True)
class Point:
    """An upstream's quality and cost."""

    name: str
    cost: float
    cell: Cell
    published: bool = False


def pareto(
    key: str, points: Sequence[Point], column: Column, cost: tuple[str, str], palette: Palette
) -> svg.Figure | None:
    """Return quality against cost with the Pareto front; None for fewer than two points.

    `cost` is what the axis measures, and the format of its figures. Costs go up in decades; 0 is at the left
    edge.
    """
    if len(points) < 2:
        return None
    box = Box(48, 30, 330, 214)
    across, up = _across(points, box), _up(points, column, box)
    front = sorted(_front(points, column), key=lambda p: p.cost)
    parts = [box.up(up, svg.ticks(*_ends(points)), column.title()), box.across(across, _cost_ticks(points), cost[0])]
    parts.append(svg.path(_steps(front, across, up, box), "front"))
    parts += [_point(p, across, up, column, cost, palette) for p in points]
    title = f"{comparison.short_name(column) if column.key[0] else column.heading} against {cost[0]}"
    description = "A point for each upstream with its 95 % interval."
    return svg.Figure(
        key=key,
        title=title,
        note="",
        svg=svg.chart(key, title, description, (344, box.bottom + 40), *parts),
        headings=("upstream", cost[0], column.title(), "interval", "on the front"),
        rows=tuple(
            (p.name, format(p.cost, cost[1]), *p.cell.texts(column)[:2], "yes" if p in front else "no") for p in points
        ),
    )


def _ends(points: Sequence[Point]) -> tuple[float, float]:
    """The least and the greatest figure to be shown, with a margin."""
    ends = [end for p in points for end in (p.cell.value, p.cell.low, p.cell.high) if end is not None]
    finite = [end for end in ends if math.isfinite(end)]
    pad = (max(finite) - min(finite)) * 0.06 or 1.0
    return min(finite) - pad, max(finite) + pad


def _up(points: Sequence[Point], column: Column, box: Box) -> svg.Scale:
    """The scale of quality: the better end on top."""
    bottom, top = (box.bottom, box.top) if column.higher_is_better else (box.top, box.bottom)
    return svg.linear(*_ends(points), bottom, top)


def _cost_ticks(points: Sequence[Point]) -> list[float]:
    """The ticks of the cost axis: powers of ten; where fewer than two are in range, the least and the greatest cost."""
    above = [p.cost for p in points if p.cost > 0]
    nothing = [0.0] if len(above) < len(points) else []
    tens = svg.decades(min(above), max(above)) if above else []
    ends = {float(f"{value:.2g}") for value in (min(above), max(above))} if above else set()
    return nothing + (tens if len(tens) > 1 else sorted(ends))


def _across(points: Sequence[Point], box: Box) -> svg.Scale:
    above = [p.cost for p in points if p.cost > 0]
    zero = box.left + 12
    start = zero + 36 if len(above) < len(points) else zero
    if not above:
        return lambda _: zero
    inner = svg.logarithmic(min(above), max(above), start, box.right - 12)
    return lambda cost: inner(cost) if cost > 0 else zero


def _front(points: Sequence[Point], column: Column) -> list[Point]:
    """The points that no other one equals in quality at the same or lower cost."""
    sign = 1 if column.higher_is_better else -1

    def dominated(p: Point) -> bool:
        at_least = [q for q in points if q is not p and q.cost <= p.cost and sign * (q.cell.value - p.cell.value) >= 0]
        return any((q.cost, q.cell.value) != (p.cost, p.cell.value) for q in at_least)

    return [p for p in points if not dominated(p)]


def _steps(front: Sequence[Point], across: svg.Scale, up: svg.Scale, box: Box) -> list[tuple[float, float]]:
    corners: list[tuple[float, float]] = []
    for p in front:
        x, y = across(p.cost), up(p.cell.value)
        corners += [(x, corners[-1][1]), (x, y)] if corners else [(x, y)]
    return [*corners, (box.right, corners[-1][1])]


def _point(
    p: Point, across: svg.Scale, up: svg.Scale, column: Column, cost: tuple[str, str], palette: Palette
) -> Markup:
    x, series = across(p.cost), palette[p.name]
    figures = " ".join(filter(None, p.cell.texts(column)[:2]))
    hint = f"{p.name}: {column.title()} {figures}, {cost[0]} {format(p.cost, cost[1])}"
    bar = Markup("")
    if p.cell.low is not None and p.cell.high is not None and not math.isnan(p.cell.low):
        bar = svg.line(x, up(p.cell.low), x, up(p.cell.high), f"whisker {svg.series_class(series)}")
    return bar + svg.mark(x, up(p.cell.value), series, hint, hollow=p.published)


COSTS = {
    "parameters": ("parameters, millions", ".2f"),
    "gmacs_per_second": ("GMAC per second of audio", ".3g"),
    "real_time_factor": ("real-time factor", ".3g"),
}
"""What a cost axis measures, and how its figures are printed."""


def figures(key: str, table: ResultTable, folder: Path, palette: Palette) -> Iterator[svg.Figure]:
    """Yield overall quality against every cost that was measured; by task where no overall figure is defined."""
    measured = costs.read(folder)
    overall = [c for c in table.columns if c.key in (totals.SUPERB_S.key, totals.MEAN.key)]
    first = {column.key[0]: column for column in reversed(comparison.task_columns(table))}
    columns = [c for c in overall if sum(c.key in row.cells for row in table.rows) > 1] or list(first.values())[::-1]
    for column in columns:
        for what, axis in COSTS.items():
            points = []
            for row in table.rows:
                cell, cost = row.cells.get(column.key), _cost(row, what, measured)
                if cell and cost is not None:
                    points.append(Point(row.name, cost, cell, row.published))
            name = f"{key}-pareto-{'-'.join(column.key).strip('-')}-{what.replace('_', '-')}"
            chart = pareto(name, points, column, axis, palette)
            if chart:
                yield chart


def _cost(row: Row, what: str, measured: costs.Costs) -> float | None:
    if what == "parameters":
        cell = row.cells.get(costs.PARAMETERS.key)
        return cell.value if cell else None
    return measured.get(row.name, {}).get(what)
