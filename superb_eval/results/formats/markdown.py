"""A result table as Markdown."""

from __future__ import annotations

from superb_eval.results.formats import escape, layout
from superb_eval.results.table.result_table import Cell, Column, ResultTable, Row


def markdown(table: ResultTable) -> str:
    """Return a table as Markdown."""
    heads = ["upstream", *(column.title() for column in table.columns)]
    rules = ["---"] + ["---:"] * len(table.columns)
    rows = [[escape.markdown(head) for head in heads], rules, *(_row(table, row) for row in table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    notes = " ".join(escape.markdown(note) for note in table.notes)
    return "\n".join([f"**{escape.markdown(table.title)}**", "", *lines, "", notes])


def _row(table: ResultTable, row: Row) -> list[str]:
    name = escape.markdown(layout.name(row))
    cells = [f"*{name}*" if row.published else name]
    for column in table.columns:
        cell = row.cells.get(column.key)
        cells.append("" if cell is None else _cell(column, cell, row.published))
    return cells


def _cell(column: Column, cell: Cell, published: bool) -> str:
    value, *more = (escape.markdown(text) for text in cell.texts(column))
    style = "**" if cell.rank else "*" if published else ""
    return " ".join(filter(None, [f"{style}{value}{style}", *more]))
