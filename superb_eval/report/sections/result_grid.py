"""The result table of a page: each cell with its interval as a bar, and its provenance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from superb_eval.report.charts import svg
from superb_eval.results import origin as origins
from superb_eval.results.folder import RunGroup, RunGroups
from superb_eval.results.table.result_table import Cell, Column, ResultTable, Row

BAR = 96.0
"""Width of an interval bar, in CSS pixels."""


@dataclass(frozen=True)
class GridCell:
    """One cell: the texts that every format of the table prints, its sort key, its bar and its provenance."""

    key: str
    value: str
    interval: str
    difference: str
    sort: str
    rank: str
    at_chance: bool
    bar: Markup
    provenance: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class GridRow:
    """One row; `source` is the publication of a published one."""

    name: str
    published: bool
    reference: bool
    source: str
    cells: tuple[GridCell | None, ...]


def rows(key: str, table: ResultTable, groups: RunGroups) -> list[GridRow]:
    """Return a table's rows; `key` makes the ids of its cells."""
    ends = {column.key: _ends(table, column) for column in table.columns}
    grid = []
    for i, row in enumerate(table.rows):
        cells = [_cell(f"{key}-cell-{i}-{j}", row, column, ends, groups) for j, column in enumerate(table.columns)]
        grid.append(GridRow(row.name, row.published, row.name == table.reference, row.source, tuple(cells)))
    return grid


def _cell(
    key: str, row: Row, column: Column, ends: Mapping[tuple[str, str], tuple[float, float]], groups: RunGroups
) -> GridCell | None:
    cell = row.cells.get(column.key)
    if cell is None:
        return None
    value, interval, difference = cell.texts(column)
    group = groups.get((row.name, column.key[0]))
    provenance = tuple(_provenance(group, column)) if group and not row.published else ()
    bar = _bar(cell, *ends[column.key])
    return GridCell(key, value, interval, difference, repr(cell.value), cell.rank, cell.at_chance, bar, provenance)


def _ends(table: ResultTable, column: Column) -> tuple[float, float]:
    """The least and the greatest that a column's bars have to show."""
    cells = [row.cells[column.key] for row in table.rows if column.key in row.cells]
    ends = [
        end for cell in cells for end in (cell.value, cell.low, cell.high) if end is not None and math.isfinite(end)
    ]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _bar(cell: Cell, low: float, high: float) -> Markup:
    """An interval on its column's scale; nothing where there is no interval."""
    if cell.low is None or cell.high is None or not math.isfinite(cell.low + cell.high):
        return Markup("")
    across = svg.linear(low, high, 4, BAR - 4)
    parts = [
        svg.line(0, 6, BAR, 6, "grid"),
        svg.line(across(cell.low), 6, across(cell.high), 6, "whisker"),
        svg.tag("circle", cx=across(cell.value), cy=6, r=3, class_="spot"),
    ]
    return svg.tag(
        "svg", *parts, viewBox=f"0 0 {svg.number(BAR)} 12", width=BAR, height=12, class_="bar", aria_hidden="true"
    )


def _provenance(group: RunGroup, column: Column) -> Iterator[tuple[str, str]]:
    record = group.record
    metric = next((m for m in record.metrics if m.key == column.key[1]), None)
    if metric:
        speakers = f" of {metric.speakers} speakers" if metric.speakers else ""
        yield "interval", f"for {metric.population}: {metric.method}; {metric.units} test units{speakers}"
    if record.chance is not None:
        yield "chance", f"{record.chance:.2f}"
    yield (
        "corpus",
        f"{record.corpus.name}{', synthetic' if record.corpus.synthetic else ''}, {record.corpus.hours:.2f} h",
    )
    yield "recipe", f"{record.task}, profile {record.profile}, {record.recipe_digest[:10]}"
    yield "weights", f"{record.upstream.fingerprint[:10]}, {record.upstream.layers} layers of {record.upstream.width}"
    yield "head", f"{record.training[0].parameters} weights, learning rate {_rates(group)}"
    yield "run", f"{record.started}, {record.hardware.get('device', '?')}, {sum(record.seconds.values()):.0f} s"
    for run in group.runs:
        origin = origins.read_valid(run.folder)
        yield f"seed {run.record.seed}", f"{run.folder}{f', made {origin}' if origin else ''}"
    yield "command", record.command


def _rates(group: RunGroup) -> str:
    rates = {fold.lr for run in group.runs for fold in run.record.training}
    return ", ".join("none" if rate is None else f"{rate:g}" for rate in sorted(rates, key=lambda r: r or 0.0))
