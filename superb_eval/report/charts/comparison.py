"""Charts of a whole board: differences from the reference, and all tasks side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from superb_eval.report.charts import svg
from superb_eval.report.charts.svg import Box
from superb_eval.results.table.result_table import Cell, Column, Place, ResultTable, Row

Palette = Mapping[str, int]
"""The place of each upstream among the series: one colour and one mark throughout a page."""


def tasks_of(board: ResultTable) -> list[Column]:
    """Return the columns that belong to tasks, and not to the upstream."""
    return [column for column in board.columns if column.place[0]]


def forests(key: str, board: ResultTable) -> list[svg.Figure]:
    """Return a chart of differences for each upstream compared with the reference, turned so that right is better.

    Differences without an interval are left out: nothing can be said of their chance.
    """
    shown = [(line, _differences(board, line)) for line in board.lines]
    reach = max((max(abs(low), abs(high)) for _, rows in shown for _, _, low, high, _ in rows), default=1.0)
    return [_forest(f"{key}-forest-{k}", board, line, rows, reach) for k, (line, rows) in enumerate(shown) if rows]


Difference = tuple[Column, float, float, float, bool]
"""Column, difference and its ends turned so that more is better, and whether it is distinguishable from none."""


def _differences(board: ResultTable, line: Row) -> list[Difference]:
    found = []
    for column in tasks_of(board):
        figure = line.figures.get(column.place)
        d = figure.difference if figure else None
        if d and d.tested:
            low, high = (d.low, d.high) if column.higher_is_better else (-d.high, -d.low)
            found.append((column, d.value if column.higher_is_better else -d.value, low, high, d.distinguishable))
    return found


def _forest(key: str, board: ResultTable, line: Row, rows: Sequence[Difference], reach: float) -> svg.Figure:
    box = Box(92, 26, 332, 26 + 22 * len(rows))
    across = svg.linear(-reach, reach, box.left, box.right)
    parts = [svg.line(across(0), box.top - 6, across(0), box.bottom, "zero")]
    parts.append(svg.text(box.left, 14, "← worse", class_="label"))
    parts.append(svg.text(box.right, 14, "better →", "end", "label"))
    for k, (column, value, low, high, clear) in enumerate(rows):
        y = box.top + 22 * k + 8
        kind = "unclear" if not clear else "better" if value > 0 else "worse"
        hint = _told(board, line, column)
        parts.append(svg.text(box.left - 10, y + 4, name_of(column), "end", "tick"))
        parts.append(svg.line(across(low), y, across(high), y, f"whisker {kind}"))
        parts.append(svg.tag("circle", svg.tag("title", hint), cx=across(value), cy=y, r=4.5, class_=f"effect {kind}"))
    parts.append(box.across(across, svg.ticks(-reach, reach, 4), "points, the better direction to the right"))
    title = f"{line.name} against {board.reference}"
    told = tuple((column.title(), *_texts(line.figures[column.place], column)) for column, *_ in rows)
    return svg.Figure(
        key=key,
        title=title,
        note="",
        svg=svg.chart(
            key, title, "Differences with 95 % intervals; the table below holds them.", (344, box.bottom + 40), *parts
        ),
        headings=("metric", "figure", "interval", f"difference from {board.reference}"),
        rows=told,
    )


def name_of(column: Column) -> str:
    """Return a short name, such as `PR PER`."""
    return f"{column.place[0].upper()} {column.heading}"


def _told(board: ResultTable, line: Row, column: Column) -> str:
    figure = line.figures[column.place]
    return f"{line.name}, {column.title()}: {' '.join(filter(None, figure.texts(column)))} (from {board.reference})"


def _texts(figure: Cell | None, column: Column) -> tuple[str, str, str]:
    return figure.texts(column) if figure else ("", "", "")


def parallel(key: str, board: ResultTable, palette: Palette) -> svg.Figure | None:
    """Return parallel coordinates: an axis for each metric, best on top; None where there are not two of them."""
    columns = [column for column in tasks_of(board) if _range(board, column) is not None]
    if len(columns) < 2:
        return None
    box = Box(40, 34, 40 + 62 * (len(columns) - 1), 254)
    parts, scales = [], {}
    for k, column in enumerate(columns):
        low, high = _range(board, column) or (0.0, 1.0)
        worst, best = (low, high) if column.higher_is_better else (high, low)
        scales[column.place] = (box.left + 62 * k, svg.linear(worst, best, box.bottom, box.top))
        x = box.left + 62 * k
        parts += [
            svg.line(x, box.top, x, box.bottom, "axis"),
            svg.text(x, 12, column.place[0].upper(), "middle", "label"),
        ]
        parts.append(svg.text(x, 26, column.shown(best), "middle", "tick"))
        parts.append(svg.text(x, box.bottom + 16, column.shown(worst), "middle", "tick"))
        parts.append(svg.text(x, box.bottom + 30, column.heading, "middle", "tick"))
    for line in sorted(board.lines, key=lambda line: line.name == board.reference):
        parts.append(_course(line, columns, scales, palette, line.name == board.reference))
    title = "All metrics side by side"
    return svg.Figure(
        key=key,
        title=title,
        note="Each axis runs from the worst of its figures at the bottom to the best on top, whichever way the metric "
        "goes; so heights can't be compared between axes. The reference is drawn thick.",
        svg=svg.chart(key, title, "One line for each upstream.", (box.right + 40, box.bottom + 40), *parts),
        headings=("upstream", *(column.title() for column in columns)),
        rows=tuple((line.name, *(_texts(line.figures.get(c.place), c)[0] for c in columns)) for line in board.lines),
        wide=True,
    )


def _range(board: ResultTable, column: Column) -> tuple[float, float] | None:
    """The least and the greatest figure of a column; None where it has fewer than two: then nothing is compared."""
    values = [line.figures[column.place].value for line in board.lines if column.place in line.figures]
    return (min(values), max(values)) if len(values) > 1 else None


def _course(
    line: Row,
    columns: Sequence[Column],
    scales: Mapping[Place, tuple[float, svg.Scale]],
    palette: Palette,
    reference: bool,
) -> Markup:
    """One upstream's line through the axes, broken where a task is missing."""
    pieces: list[list[tuple[float, float]]] = [[]]
    marks = []
    for column in columns:
        figure = line.figures.get(column.place)
        if figure is None:
            pieces.append([])
            continue
        x, scale = scales[column.place]
        pieces[-1].append((x, scale(figure.value)))
        hint = f"{line.name}, {column.title()}: {' '.join(filter(None, figure.texts(column)))}"
        marks.append(svg.mark(x, scale(figure.value), palette[line.name], hint, hollow=line.published))
    kind = (
        f"course {svg.series(palette[line.name])}{' thick' if reference else ''}{' dashed' if line.published else ''}"
    )
    return Markup("").join([*(svg.path(piece, kind) for piece in pieces if len(piece) > 1), *marks])
