"""The forms a board takes for machines: CSV for a spreadsheet, JSON for a program. A row is a figure."""

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
    "board",
    "upstream",
    "published",
    "task",
    "metric",
    "unit",
    "higher_is_better",
    "value",
    "low",
    "high",
    "seeds",
    "spread",
    "difference",
    "difference_low",
    "difference_high",
    "distinguishable",
    "rank",
    "marks",
    "source",
)
"""Columns of the CSV, and keys of a figure in the JSON."""


def as_csv(boards: Sequence[ResultTable]) -> str:
    """Return all figures of all boards, a row each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in (row for board in boards for row in _records(board)):
        safe = {key: escape.spreadsheet(value) if isinstance(value, str) else value for key, value in row.items()}
        writer.writerow(safe)
    return text.getvalue()


def as_json(boards: Sequence[ResultTable], left_out: Sequence[str] = ()) -> str:
    """Return all boards with their figures and notes, and what was left out."""
    content = [
        {"title": b.title, "reference": b.reference, "notes": list(b.notes), "figures": list(_records(b))}
        for b in boards
    ]
    return json.dumps({"boards": content, "left_out": list(left_out)}, indent=1, ensure_ascii=True, allow_nan=False)


def _records(board: ResultTable) -> Iterator[dict[str, Any]]:
    for line in board.lines:
        for column in board.columns:
            figure = line.figures.get(column.place)
            if figure is not None:
                yield _record(board, line, column, figure)


def _record(board: ResultTable, line: Row, column: Column, figure: Cell) -> dict[str, Any]:
    difference = figure.difference
    tested = difference is not None and difference.tested
    task, key = column.place
    values = (
        board.title,
        line.name,
        line.published,
        task,
        key,
        column.unit,
        column.higher_is_better,
        _number(figure.value),
        _number(figure.low),
        _number(figure.high),
        figure.seeds,
        _number(figure.spread),
        _number(difference.value) if difference else None,
        _number(difference.low) if difference and tested else None,
        _number(difference.high) if difference and tested else None,
        difference.distinguishable if difference and tested else None,
        figure.rank,
        figure.marks,
        line.source,
    )
    return dict(zip(FIELDS, values, strict=True))


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)
