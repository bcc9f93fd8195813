"""Quality against cost, with the front of those upstreams that nothing beats in both."""

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
    """An upstream among quality and cost."""

    name: str
    cost: float
    figure: Cell
    published: bool = False


def pareto(
    key: str, points: Sequence[Point], column: Column, cost: tuple[str, str], palette: Palette
) -> svg.Figure | None:
    """Return quality against cost with the front of those that nothing beats in both; None for fewer than two.

    `cost` is what the axis measures, and the format of its figures. Costs go up in decades; one of 0 stands at the
    left edge.
    """
    if len(points) < 2:
        return None
    box = Box(48, 30, 330, 214)
    across, up = _across(points, box), _up(points, column, box)
    front = sorted(_front(points, column), key=lambda p: p.cost)
    parts = [box.up(up, svg.ticks(*_ends(points)), column.title()), box.across(across, _marked(points), cost[0])]
    parts.append(svg.path(_steps(front, across, up, box), "front"))
    parts += [_point(p, across, up, column, cost, palette) for p in points]
    title = f"{comparison.name_of(column) if column.place[0] else column.heading} against {cost[0]}"
    told = "A point for each upstream with its 95 % interval."
    return svg.Figure(
        key=key,
        title=title,
        note="",
        svg=svg.chart(key, title, told, (344, box.bottom + 40), *parts),
        headings=("upstream", cost[0], column.title(), "interval", "on the front"),
        rows=tuple(
            (p.name, format(p.cost, cost[1]), *p.figure.texts(column)[:2], "yes" if p in front else "no")
            for p in points
        ),
    )


def _ends(points: Sequence[Point]) -> tuple[float, float]:
    """The least and the greatest figure to be shown, and a little more."""
    figures = [end for p in points for end in (p.figure.value, p.figure.low, p.figure.high) if end is not None]
    known = [end for end in figures if math.isfinite(end)]
    pad = (max(known) - min(known)) * 0.06 or 1.0
    return min(known) - pad, max(known) + pad


def _up(points: Sequence[Point], column: Column, box: Box) -> svg.Scale:
    """The scale of quality: the better end on top."""
    bottom, top = (box.bottom, box.top) if column.higher_is_better else (box.top, box.bottom)
    return svg.linear(*_ends(points), bottom, top)


def _marked(points: Sequence[Point]) -> list[float]:
    """The costs that the axis names: powers of ten, or where there are not two between the points, their own ends."""
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
    """Those that no other point equals in quality at no greater cost."""
    sign = 1 if column.higher_is_better else -1

    def beaten(p: Point) -> bool:
        at_least = [
            q for q in points if q is not p and q.cost <= p.cost and sign * (q.figure.value - p.figure.value) >= 0
        ]
        return any((q.cost, q.figure.value) != (p.cost, p.figure.value) for q in at_least)

    return [p for p in points if not beaten(p)]


def _steps(front: Sequence[Point], across: svg.Scale, up: svg.Scale, box: Box) -> list[tuple[float, float]]:
    corners: list[tuple[float, float]] = []
    for p in front:
        x, y = across(p.cost), up(p.figure.value)
        corners += [(x, corners[-1][1]), (x, y)] if corners else [(x, y)]
    return [*corners, (box.right, corners[-1][1])]


def _point(
    p: Point, across: svg.Scale, up: svg.Scale, column: Column, cost: tuple[str, str], palette: Palette
) -> Markup:
    x, place = across(p.cost), palette[p.name]
    figures = " ".join(filter(None, p.figure.texts(column)[:2]))
    hint = f"{p.name}: {column.title()} {figures}, {cost[0]} {format(p.cost, cost[1])}"
    bar = Markup("")
    if p.figure.low is not None and p.figure.high is not None and not math.isnan(p.figure.low):
        bar = svg.line(x, up(p.figure.low), x, up(p.figure.high), f"whisker {svg.series(place)}")
    return bar + svg.mark(x, up(p.figure.value), place, hint, hollow=p.published)


COSTS = {
    "parameters": ("parameters, millions", ".2f"),
    "gmacs_per_second": ("GMAC per second of audio", ".3g"),
    "real_time_factor": ("real-time factor", ".3g"),
}
"""What a cost axis measures, and how its figures are printed."""


def figures(key: str, board: ResultTable, folder: Path, palette: Palette) -> Iterator[svg.Figure]:
    """Yield overall quality against every cost that is known; by task where no overall figure is defined."""
    known = costs.read(folder)
    overall = [c for c in board.columns if c.place in (totals.SUPERB_S.place, totals.MEAN.place)]
    first = {column.place[0]: column for column in reversed(comparison.tasks_of(board))}
    columns = [c for c in overall if sum(c.place in line.figures for line in board.lines) > 1] or list(first.values())[
        ::-1
    ]
    for column in columns:
        for what, cost in COSTS.items():
            points = []
            for line in board.lines:
                figure, paid = line.figures.get(column.place), _paid(line, what, known)
                if figure and paid is not None:
                    points.append(Point(line.name, paid, figure, line.published))
            name = f"{key}-pareto-{'-'.join(column.place).strip('-')}-{what.replace('_', '-')}"
            chart = pareto(name, points, column, cost, palette)
            if chart:
                yield chart


def _paid(line: Row, what: str, known: costs.Costs) -> float | None:
    if what == "parameters":
        figure = line.figures.get(costs.PARAMETERS.place)
        return figure.value if figure else None
    return known.get(line.name, {}).get(what)
