"""Charts of a whole table: differences from the reference, and all tasks side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from superb_eval.report.charts import svg
from superb_eval.report.charts.svg import Box
from superb_eval.results.table.result_table import Cell, Column, ColumnKey, ResultTable, Row

Palette = Mapping[str, int]
"""The number of each upstream's series: one colour and one mark throughout a page."""


def task_columns(table: ResultTable) -> list[Column]:
    """Return the columns that belong to tasks, and not to the upstream."""
    return [column for column in table.columns if column.key[0]]


def forests(key: str, table: ResultTable) -> list[svg.Figure]:
    """Return a chart of differences for each upstream compared with the reference, oriented so that right is better.

    Differences without an interval are left out: they were not tested against chance.
    """
    shown = [(row, _differences(table, row)) for row in table.rows]
    reach = max(
        (max(abs(low), abs(high)) for _, differences in shown for _, _, low, high, _ in differences), default=1.0
    )
    return [
        _forest(f"{key}-forest-{k}", table, row, differences, reach)
        for k, (row, differences) in enumerate(shown)
        if differences
    ]


class OrientedDifference(NamedTuple):
    """A difference with the ends of its interval, oriented so that more is better."""

    column: Column
    value: float
    low: float
    high: float
    distinguishable: bool


def _differences(table: ResultTable, row: Row) -> list[OrientedDifference]:
    differences = []
    for column in task_columns(table):
        cell = row.cells.get(column.key)
        d = cell.difference if cell else None
        if d and d.tested:
            low, high = (d.low, d.high) if column.higher_is_better else (-d.high, -d.low)
            value = d.value if column.higher_is_better else -d.value
            differences.append(OrientedDifference(column, value, low, high, d.distinguishable))
    return differences


def _forest(
    key: str, table: ResultTable, row: Row, differences: Sequence[OrientedDifference], reach: float
) -> svg.Figure:
    box = Box(92, 26, 332, 26 + 22 * len(differences))
    across = svg.linear(-reach, reach, box.left, box.right)
    parts = [svg.line(across(0), box.top - 6, across(0), box.bottom, "zero")]
    parts.append(svg.text(box.left, 14, "← worse", class_="label"))
    parts.append(svg.text(box.right, 14, "better →", "end", "label"))
    for k, (column, value, low, high, distinguishable) in enumerate(differences):
        y = box.top + 22 * k + 8
        kind = "inconclusive" if not distinguishable else "better" if value > 0 else "worse"
        hint = _hint(table, row, column)
        parts.append(svg.text(box.left - 10, y + 4, short_name(column), "end", "tick"))
        parts.append(svg.line(across(low), y, across(high), y, f"whisker {kind}"))
        parts.append(svg.tag("circle", svg.tag("title", hint), cx=across(value), cy=y, r=4.5, class_=f"effect {kind}"))
    parts.append(box.across(across, svg.ticks(-reach, reach, 4), "points, the better direction to the right"))
    title = f"{row.name} against {table.reference}"
    texts = tuple((column.title(), *_texts(row.cells[column.key], column)) for column, *_ in differences)
    return svg.Figure(
        key=key,
        title=title,
        note="",
        svg=svg.chart(
            key, title, "Differences with 95 % intervals; the table below holds them.", (344, box.bottom + 40), *parts
        ),
        headings=("metric", "figure", "interval", f"difference from {table.reference}"),
        rows=texts,
    )


def short_name(column: Column) -> str:
    """Return a short name, such as `PR PER`."""
    return f"{column.key[0].upper()} {column.heading}"


def _hint(table: ResultTable, row: Row, column: Column) -> str:
    cell = row.cells[column.key]
    return f"{row.name}, {column.title()}: {' '.join(filter(None, cell.texts(column)))} (from {table.reference})"


def _texts(cell: Cell | None, column: Column) -> tuple[str, str, str]:
    return cell.texts(column) if cell else ("", "", "")


def parallel(key: str, table: ResultTable, palette: Palette) -> svg.Figure | None:
    """Return parallel coordinates: an axis for each metric, best on top; None for fewer than two metrics."""
    columns = [column for column in task_columns(table) if _extremes(table, column) is not None]
    if len(columns) < 2:
        return None
    box = Box(40, 34, 40 + 62 * (len(columns) - 1), 254)
    parts, scales = [], {}
    for k, column in enumerate(columns):
        low, high = _extremes(table, column) or (0.0, 1.0)
        worst, best = (low, high) if column.higher_is_better else (high, low)
        scales[column.key] = (box.left + 62 * k, svg.linear(worst, best, box.bottom, box.top))
        x = box.left + 62 * k
        parts += [
            svg.line(x, box.top, x, box.bottom, "axis"),
            svg.text(x, 12, column.key[0].upper(), "middle", "label"),
        ]
        parts.append(svg.text(x, 26, column.format(best), "middle", "tick"))
        parts.append(svg.text(x, box.bottom + 16, column.format(worst), "middle", "tick"))
        parts.append(svg.text(x, box.bottom + 30, column.heading, "middle", "tick"))
    for row in sorted(table.rows, key=lambda row: row.name == table.reference):
        parts.append(_course(row, columns, scales, palette, row.name == table.reference))
    title = "All metrics side by side"
    return svg.Figure(
        key=key,
        title=title,
        note="Each axis runs from the worst of its figures at the bottom to the best on top, whatever the metric's "
        "direction; so heights can't be compared between axes. The reference is drawn thick.",
        svg=svg.chart(key, title, "One line for each upstream.", (box.right + 40, box.bottom + 40), *parts),
        headings=("upstream", *(column.title() for column in columns)),
        rows=tuple((row.name, *(_texts(row.cells.get(c.key), c)[0] for c in columns)) for row in table.rows),
        wide=True,
    )


def _extremes(table: ResultTable, column: Column) -> tuple[float, float] | None:
    """The least and the greatest figure of a column; None where it has fewer than two."""
    values = [row.cells[column.key].value for row in table.rows if column.key in row.cells]
    return (min(values), max(values)) if len(values) > 1 else None


def _course(
    row: Row,
    columns: Sequence[Column],
    scales: Mapping[ColumnKey, tuple[float, svg.Scale]],
    palette: Palette,
    reference: bool,
) -> Markup:
    """One upstream's line through the axes, broken where a task is missing."""
    pieces: list[list[tuple[float, float]]] = [[]]
    marks = []
    for column in columns:
        cell = row.cells.get(column.key)
        if cell is None:
            pieces.append([])
            continue
        x, scale = scales[column.key]
        pieces[-1].append((x, scale(cell.value)))
        hint = f"{row.name}, {column.title()}: {' '.join(filter(None, cell.texts(column)))}"
        marks.append(svg.mark(x, scale(cell.value), palette[row.name], hint, hollow=row.published))
    style = f"{' thick' if reference else ''}{' dashed' if row.published else ''}"
    kind = f"course {svg.series_class(palette[row.name])}{style}"
    return Markup("").join([*(svg.path(piece, kind) for piece in pieces if len(piece) > 1), *marks])
