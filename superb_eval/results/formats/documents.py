"""A result table formatted for people: rich (terminal), Markdown, LaTeX. All print the same figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from superb_eval.results.formats import escape
from superb_eval.results.table.result_table import Cell, Column, ResultTable, Row

if TYPE_CHECKING:
    from rich.table import Table as RichTable

PAGE = 110
r"""Characters of `\tiny` print on a line of LaTeX's `article`, 345 points wide."""


def rich_tables(table: ResultTable, width: int) -> list[RichTable]:
    """Return a table for a terminal of that width, in characters: columns that don't fit follow in further tables."""
    return [_rich_table(table, columns) for columns in _chunks(table, width, _stacked)]


def rich_title(table: ResultTable) -> str:
    """Return a table's title for a terminal; it may be wider than the table."""
    return f"[bold]{escape.rich(table.title)}[/bold]"


def rich_notes(table: ResultTable) -> str:
    """Return a table's notes for a terminal."""
    return escape.rich(" ".join(table.notes))


def markdown(table: ResultTable) -> str:
    """Return a table as Markdown."""
    heads = ["upstream", *(column.title() for column in table.columns)]
    rules = ["---"] + ["---:"] * len(table.columns)
    rows = [[escape.markdown(head) for head in heads], rules, *(_markdown_row(table, row) for row in table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    notes = " ".join(escape.markdown(note) for note in table.notes)
    return "\n".join([f"**{escape.markdown(table.title)}**", "", *lines, "", notes])


def latex(table: ResultTable) -> str:
    r"""Return a table as LaTeX tables that need no package; each is at most as wide as a page of `article`."""
    parts = list(_chunks(table, PAGE, _narrow))
    tables = []
    for k, columns in enumerate(parts, start=1):
        part = f", part {k} of {len(parts)}" if len(parts) > 1 else ""
        notes = [r"\par\smallskip", " ".join(escape.latex(note) for note in table.notes)] if k == len(parts) else []
        tables.append("\n".join(_tex_table(table, columns, f"{table.title}{part}", notes)))
    return "\n\n".join(tables)


def _tex_table(table: ResultTable, columns: Sequence[Column], title: str, notes: Sequence[str]) -> Iterator[str]:
    heads = [_tex_cell(["upstream"]), *(_tex_cell([escape.latex(text) for text in _wrapped(c)]) for c in columns)]
    yield r"\begin{table}"
    yield r"\tiny\setlength{\tabcolsep}{3pt}"
    yield rf"\caption{{{escape.latex(title)}}}"
    yield rf"\begin{{tabular}}{{l{'r' * len(columns)}}}"
    yield from (r"\hline", " & ".join(heads) + r" \\", r"\hline")
    yield from _tex_body(table, columns)
    yield from (r"\hline", r"\end{tabular}", *notes, r"\end{table}")


def _chunks(
    table: ResultTable, width: int, cell_lines: Callable[[Cell, Column], Sequence[str]]
) -> Iterator[tuple[Column, ...]]:
    """Cut the columns into tables that fit a width, in characters; each has one column at least."""
    name = max(8, *(len(_name(row)) for row in table.rows)) + 4
    remaining = list(table.columns)
    while remaining:
        chunk: list[Column] = []
        left = width - name
        while remaining and (not chunk or left >= _width(table, remaining[0], cell_lines)):
            left -= _width(table, remaining[0], cell_lines)
            chunk.append(remaining.pop(0))
        yield tuple(chunk)


def _width(table: ResultTable, column: Column, cell_lines: Callable[[Cell, Column], Sequence[str]]) -> int:
    cells = [row.cells[column.key] for row in table.rows if column.key in row.cells]
    texts = [text for cell in cells for text in cell_lines(cell, column)]
    return max(len(text) for text in [*_wrapped(column), *texts]) + 3


def _stacked(cell: Cell, column: Column) -> list[str]:
    """A value, its interval, its difference: a line each."""
    return [text for text in cell.texts(column) if text]


def _narrow(cell: Cell, column: Column) -> list[str]:
    """The same on more lines: each interval and each spread begins one."""
    return [part for text in _stacked(cell, column) for part in re.split(r" (?=\[|±)", text)]


def _wrapped(column: Column) -> list[str]:
    """A heading on two lines: the task above the metric."""
    task = column.key[0].upper()
    return [task, column.title().removeprefix(task).strip()] if task else [column.title()]


def _rich_table(table: ResultTable, columns: Sequence[Column]) -> RichTable:
    from rich.table import Table

    rich_table = Table(show_lines=True)
    rich_table.add_column("upstream", no_wrap=True)
    for column in columns:
        rich_table.add_column("\n".join(map(escape.rich, _wrapped(column))), justify="right", no_wrap=True)
    published_before = False
    for row in table.rows:
        if row.published and not published_before and rich_table.row_count:
            rich_table.add_section()
        published_before = row.published
        cells = [_rich_cell(column, row.cells.get(column.key)) for column in columns]
        name = escape.rich(_name(row))
        rich_table.add_row(
            f"[italic]{name}[/italic]" if row.published else name, *cells, style="italic" if row.published else None
        )
    return rich_table


def _rich_cell(column: Column, cell: Cell | None) -> str:
    if cell is None:
        return ""
    value, *more = map(escape.rich, _stacked(cell, column))
    if cell.at_chance:
        return "\n".join(f"[dim]{text}[/dim]" for text in (value, *more))
    return "\n".join([f"[bold]{value}[/bold]" if cell.rank else value, *more])


def _name(row: Row) -> str:
    return escape.short(row.name) + ("†" if row.published else "")


def _markdown_row(table: ResultTable, row: Row) -> list[str]:
    name = escape.markdown(_name(row))
    cells = [f"*{name}*" if row.published else name]
    for column in table.columns:
        cell = row.cells.get(column.key)
        cells.append("" if cell is None else _markdown_cell(column, cell, row.published))
    return cells


def _markdown_cell(column: Column, cell: Cell, published: bool) -> str:
    value, *more = (escape.markdown(text) for text in cell.texts(column))
    style = "**" if cell.rank else "*" if published else ""
    return " ".join(filter(None, [f"{style}{value}{style}", *more]))


def _tex_body(table: ResultTable, columns: Sequence[Column]) -> Iterator[str]:
    published_before = False
    for row in table.rows:
        if row.published and not published_before:
            yield r"\hline"
        published_before = row.published
        name = escape.latex(_name(row))
        cells = [_tex_cell([rf"\textit{{{name}}}" if row.published else name])]
        cells += [_tex_table_cell(column, row.cells.get(column.key), row.published) for column in columns]
        yield " & ".join(cells) + r" \\\noalign{\vskip3pt}"


def _tex_table_cell(column: Column, cell: Cell | None, published: bool) -> str:
    if cell is None:
        return ""
    value, *more = map(escape.latex, _narrow(cell, column))
    style = "textbf" if cell.rank else "textit" if published else ""
    return _tex_cell([rf"\{style}{{{value}}}" if style else value, *more])


def _tex_cell(lines: Sequence[str]) -> str:
    """Stacked lines, without any package."""
    if len(lines) == 1:
        return lines[0]
    return r"\begin{tabular}[t]{@{}r@{}}" + r" \\ ".join(lines) + r"\end{tabular}"
