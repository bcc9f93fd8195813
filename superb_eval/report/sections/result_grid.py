"""The result table of a page: one figure for each task and how it compares, with interval and provenance on demand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from superb_eval.report import verdicts
from superb_eval.report.markup import line, linear, number, tag
from superb_eval.report.verdicts import Verdict
from superb_eval.results import origin as origins
from superb_eval.results.folder import RunGroup, RunGroups
from superb_eval.results.table import totals
from superb_eval.results.table.result_table import Cell, Column, ColumnKey, ResultTable, Row

BAR = 76.0
"""Width of an interval bar, in CSS pixels."""


@dataclass(frozen=True)
class GridColumn:
    """A column: its heading on two lines, the direction it is sorted by first, and whether it is shown unchosen."""

    heading: str
    subheading: str
    first: Literal["ascending", "descending"]
    shown: bool

    @property
    def name(self) -> str:
        """The heading on one line."""
        return f"{self.heading} {self.subheading}".strip()


@dataclass(frozen=True)
class GridCell:
    """One cell: the texts that every format of the table prints, how it compares, its sort key, bar and provenance."""

    key: str
    value: str
    interval: str
    difference: str
    verdict: Verdict
    sort: str
    rank: str
    at_chance: bool
    bar: Markup
    provenance: tuple[tuple[str, str], ...]

    @property
    def sign(self) -> str:
        """The sign of the verdict."""
        return verdicts.SIGNS[self.verdict]

    @property
    def words(self) -> str:
        """The verdict in words."""
        return verdicts.WORDS[self.verdict]


@dataclass(frozen=True)
class GridRow:
    """One row; `source` is the publication of a published one."""

    name: str
    published: bool
    reference: bool
    source: str
    cells: tuple[GridCell | None, ...]


@dataclass(frozen=True)
class Grid:
    """The table as the page shows it."""

    columns: tuple[GridColumn, ...]
    rows: tuple[GridRow, ...]


def grid(key: str, table: ResultTable, groups: RunGroups) -> Grid:
    """Return a table's grid; `key` makes the ids of its cells."""
    columns = arranged(table.columns)
    shown = _shown(columns)
    ends = {column.key: _ends(table, column) for column in columns}
    rows = [
        GridRow(
            row.name,
            row.published,
            row.name == table.reference,
            row.source,
            tuple(_cell(f"{key}-cell-{i}-{j}", row, column, ends, groups) for j, column in enumerate(columns)),
        )
        for i, row in enumerate(table.rows)
    ]
    return Grid(tuple(_column(column, column.key in shown) for column in columns), tuple(rows))


def arranged(columns: Sequence[Column]) -> list[Column]:
    """Return columns in the order of the page: overall figures, those of tasks, costs."""
    overall = [column for column in totals.COLUMNS if column in columns]
    of_tasks = [column for column in columns if column.key[0]]
    return [*overall, *of_tasks, *(column for column in columns if column not in (*overall, *of_tasks))]


def _shown(columns: Sequence[Column]) -> set[ColumnKey]:
    """The overall figures and the first metric of each task; the others are shown when chosen."""
    first: dict[str, ColumnKey] = {}
    for column in columns:
        first.setdefault(column.key[0], column.key)
    return {key for task, key in first.items() if task} | {totals.SUPERB_S.key, totals.MEAN.key}


def _column(column: Column, shown: bool) -> GridColumn:
    heading = column.key[0].upper() or column.heading
    subheading = column.title().removeprefix(heading).strip()
    return GridColumn(heading, subheading, "ascending" if column.higher_is_better is False else "descending", shown)


def _cell(
    key: str, row: Row, column: Column, ends: Mapping[ColumnKey, tuple[float, float]], groups: RunGroups
) -> GridCell | None:
    cell = row.cells.get(column.key)
    if cell is None:
        return None
    value, interval, difference = cell.texts(column)
    group = groups.get((row.name, column.key[0]))
    return GridCell(
        key=key,
        value=value,
        interval=interval,
        difference=difference,
        verdict=verdicts.verdict(cell, column),
        sort=repr(cell.value),
        rank=cell.rank,
        at_chance=cell.at_chance,
        bar=_bar(cell, *ends[column.key]),
        provenance=tuple(_provenance(group, column)) if group and not row.published else (),
    )


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
    across = linear(low, high, 4, BAR - 4)
    parts = [
        line(0, 6, BAR, 6, "grid"),
        line(across(cell.low), 6, across(cell.high), 6, "whisker"),
        tag("circle", cx=across(cell.value), cy=6, r=3, class_="spot"),
    ]
    return tag("svg", *parts, viewBox=f"0 0 {number(BAR)} 12", width=BAR, height=12, class_="bar", aria_hidden="true")


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
