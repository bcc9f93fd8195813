"""What the formats for people share: names, headings and cells as lines of text, and columns that fit a width."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from superb_eval.results.formats import escape
from superb_eval.results.table.result_table import Cell, Column, ResultTable, Row

CellLines = Callable[[Cell, Column], Sequence[str]]
"""The lines of text that a cell is printed in."""


Heading = Callable[[Column], Sequence[str]]
"""The lines of text of a column's heading."""


def name(row: Row) -> str:
    """Return a row's name; that of a published system is marked."""
    return escape.short(row.name) + ("†" if row.published else "")


def heading(column: Column) -> list[str]:
    """Return a column's heading on two lines: the task above the metric."""
    task = column.key[0].upper()
    return [task, column.title().removeprefix(task).strip()] if task else [column.title()]


def short_heading(column: Column) -> list[str]:
    """Return a column's heading in short lines: task, words of the metric, unit and arrow."""
    task, words = column.key[0].upper(), column.heading.split()
    unit = column.title().removeprefix(task).strip().removeprefix(column.heading).strip()
    return [text for text in (task, *words, unit) if text]


def stacked(cell: Cell, column: Column) -> list[str]:
    """Return a cell's value, its interval and its difference, a line each."""
    return [text for text in cell.texts(column) if text]


def narrow(cell: Cell, column: Column) -> list[str]:
    """Return the same on more lines: each interval and each spread begins one."""
    return [part for text in stacked(cell, column) for part in re.split(r" (?=\[|±)", text)]


def names_width(table: ResultTable) -> int:
    """Return the characters that the names of rows need."""
    return max(8, *(len(name(row)) for row in table.rows))


def column_width(table: ResultTable, column: Column, lines: CellLines, head: Heading = heading) -> int:
    """Return the characters that a column needs."""
    cells = [row.cells[column.key] for row in table.rows if column.key in row.cells]
    texts = [text for cell in cells for text in lines(cell, column)]
    return max(len(text) for text in [*head(column), *texts])


def chunks(
    table: ResultTable, width: int, lines: CellLines, head: Heading = heading, padding: int = 3
) -> Iterator[tuple[Column, ...]]:
    """Cut the columns into tables that fit a width in characters, `padding` between columns; each has one at least."""
    remaining = list(table.columns)
    while remaining:
        chunk: list[Column] = []
        left = width - names_width(table) - padding - 1
        while remaining:
            needed = column_width(table, remaining[0], lines, head) + padding
            if chunk and left < needed:
                break
            left -= needed
            chunk.append(remaining.pop(0))
        yield tuple(chunk)
