"""The table as a page shows it: each cell with its interval as a bar, and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from superb_eval.report.charts import svg
from superb_eval.results.folder import Run, RunGroup
from superb_eval.results.table.result_table import Cell, Column, ResultTable, Row

Cells = Mapping[tuple[str, str], RunGroup]

BAR = 96.0
"""Width of an interval bar, in CSS pixels."""


@dataclass(frozen=True)
class GridCell:
    """One cell: the texts that every form of the table prints, what it sorts by, its bar and its provenance."""

    key: str
    value: str
    interval: str
    difference: str
    sort: str
    rank: str
    bar: Markup
    provenance: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class GridRow:
    """One row; `source` tells where a published one is from."""

    name: str
    published: bool
    reference: bool
    source: str
    cells: tuple[GridCell | None, ...]


def rows(key: str, board: ResultTable, cells: Cells) -> list[GridRow]:
    """Return a board's rows; `key` makes the ids of its cells."""
    ends = {column.place: _ends(board, column) for column in board.columns}
    found = []
    for i, line in enumerate(board.lines):
        row = [_cell(f"{key}-cell-{i}-{j}", line, column, ends, cells) for j, column in enumerate(board.columns)]
        found.append(GridRow(line.name, line.published, line.name == board.reference, line.source, tuple(row)))
    return found


def _cell(
    key: str, line: Row, column: Column, ends: Mapping[tuple[str, str], tuple[float, float]], cells: Cells
) -> GridCell | None:
    figure = line.figures.get(column.place)
    if figure is None:
        return None
    value, interval, difference = figure.texts(column)
    cell = cells.get((line.name, column.place[0]))
    told = tuple(_provenance(cell, column)) if cell and not line.published else ()
    bar = _bar(figure, *ends[column.place])
    return GridCell(key, value, interval, difference, repr(figure.value), figure.rank, bar, told)


def _ends(board: ResultTable, column: Column) -> tuple[float, float]:
    """The least and the greatest that a column's bars have to show."""
    figures = [line.figures[column.place] for line in board.lines if column.place in line.figures]
    ends = [end for f in figures for end in (f.value, f.low, f.high) if end is not None and math.isfinite(end)]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _bar(figure: Cell, low: float, high: float) -> Markup:
    """An interval on its column's scale; nothing where there is no interval."""
    if figure.low is None or figure.high is None or not math.isfinite(figure.low + figure.high):
        return Markup("")
    across = svg.linear(low, high, 4, BAR - 4)
    parts = [
        svg.line(0, 6, BAR, 6, "grid"),
        svg.line(across(figure.low), 6, across(figure.high), 6, "whisker"),
        svg.tag("circle", cx=across(figure.value), cy=6, r=3, class_="spot"),
    ]
    return svg.tag(
        "svg", *parts, viewBox=f"0 0 {svg.number(BAR)} 12", width=BAR, height=12, class_="bar", aria_hidden="true"
    )


def _provenance(cell: RunGroup, column: Column) -> Iterator[tuple[str, str]]:
    record = cell.record
    metric = next((m for m in record.metrics if m.key == column.place[1]), None)
    if metric:
        yield "interval", f"{metric.method}; {metric.units} test units"
    if record.chance is not None:
        yield "chance", f"{record.chance:.2f}"
    yield (
        "corpus",
        f"{record.corpus.name}{', synthetic' if record.corpus.synthetic else ''}, {record.corpus.hours:.2f} h",
    )
    yield "recipe", f"{record.task}, profile {record.profile}, {record.recipe_digest[:10]}"
    yield "weights", f"{record.upstream.fingerprint[:10]}, {record.upstream.layers} layers of {record.upstream.width}"
    yield "head", f"{record.training[0].parameters} weights, learning rate {_rates(cell)}"
    yield "run", f"{record.started}, {record.hardware.get('device', '?')}, {sum(record.seconds.values()):.0f} s"
    for run in cell.runs:
        yield f"seed {run.record.seed}", str(run.folder)
    yield "command", record.command


def _rates(cell: RunGroup) -> str:
    rates = {fold.lr for run in cell.runs for fold in run.record.training}
    return ", ".join("none" if rate is None else f"{rate:g}" for rate in sorted(rates, key=lambda r: r or 0.0))


def runs_of(cells: Cells) -> Iterator[Run]:
    """Yield every run that a board shows."""
    for cell in cells.values():
        yield from cell.runs
