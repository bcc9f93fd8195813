"""A result table formatted for programs: CSV and JSON, a record for each figure."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from superb_eval.results.formats import escape
from superb_eval.results.table.result_table import Cell, Column, ResultTable, Row

FIELDS = (
    "table",
    "upstream",
    "published",
    "task",
    "metric",
    "unit",
    "higher_is_better",
    "value",
    "low",
    "high",
    "population",
    "training_sd",
    "seeds",
    "spread",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "distinguishable",
    "rank",
    "marks",
    "at_chance",
    "source",
)
"""Columns of the CSV, and keys of a figure in the JSON."""


def as_csv(tables: Sequence[ResultTable]) -> str:
    """Return all figures of all tables, a row each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in (row for table in tables for row in _records(table)):
        safe = {key: escape.spreadsheet(value) if isinstance(value, str) else value for key, value in row.items()}
        writer.writerow(safe)
    return text.getvalue()


def as_json(tables: Sequence[ResultTable], left_out: Sequence[str] = ()) -> str:
    """Return all tables with their figures and notes, and what was left out."""
    content = [
        {
            "title": table.title,
            "reference": table.reference,
            "notes": list(table.notes),
            "figures": list(_records(table)),
        }
        for table in tables
    ]
    return json.dumps({"tables": content, "left_out": list(left_out)}, indent=1, ensure_ascii=True, allow_nan=False)


def _records(table: ResultTable) -> Iterator[dict[str, Any]]:
    for row in table.rows:
        for column in table.columns:
            cell = row.cells.get(column.key)
            if cell is not None:
                yield _record(table, row, column, cell)


def _record(table: ResultTable, row: Row, column: Column, cell: Cell) -> dict[str, Any]:
    difference = cell.difference
    tested = difference is not None and difference.tested
    task, key = column.key
    values = (
        table.title,
        row.name,
        row.published,
        task,
        key,
        column.unit,
        column.higher_is_better,
        _number(cell.value),
        _number(cell.low),
        _number(cell.high),
        cell.population,
        _number(cell.training),
        cell.seeds,
        _number(cell.spread),
        _number(difference.value) if difference else None,
        _number(difference.low) if difference and tested else None,
        _number(difference.high) if difference and tested else None,
        _number(difference.p) if difference else None,
        difference.distinguishable if difference and difference.p is not None else None,
        cell.rank,
        cell.marks,
        cell.at_chance,
        row.source,
    )
    return dict(zip(FIELDS, values, strict=True))


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)
