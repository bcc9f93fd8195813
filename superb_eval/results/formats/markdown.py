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


def one_row(table: ResultTable, row: Row) -> str:
    """Return a row of a table as a table of its own, with a line for each column."""
    lines = ["| metric | value | 95 % interval |", "| --- | ---: | --- |"]
    for column in table.columns:
        if column.key in row.cells:
            value, interval, _ = row.cells[column.key].texts(column)
            lines.append(f"| {escape.markdown(column.title())} | {escape.markdown(value)} | {interval} |")
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
