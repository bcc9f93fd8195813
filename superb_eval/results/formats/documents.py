"""The forms a board takes for people: a terminal, a document, a paper. All print its figures."""

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


def rich_tables(board: ResultTable, width: int) -> list[RichTable]:
    """Return a board as tables for a terminal of that width, in characters: columns that don't fit go below."""
    return [_rich_table(board, columns) for columns in _chunks(board, width, _stacked)]


def rich_title(board: ResultTable) -> str:
    """Return a board's title for a terminal: apart from its tables, which may be narrower."""
    return f"[bold]{escape.rich(board.title)}[/bold]"


def rich_notes(board: ResultTable) -> str:
    """Return a board's notes for a terminal."""
    return escape.rich(" ".join(board.notes))


def markdown(board: ResultTable) -> str:
    """Return a board as Markdown."""
    heads = ["upstream", *(column.title() for column in board.columns)]
    rules = ["---"] + ["---:"] * len(board.columns)
    rows = [[escape.markdown(head) for head in heads], rules, *(_markdown_row(board, line) for line in board.lines)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    notes = " ".join(escape.markdown(note) for note in board.notes)
    return "\n".join([f"**{escape.markdown(board.title)}**", "", *lines, "", notes])


def latex(board: ResultTable) -> str:
    r"""Return a board as LaTeX tables that need no package; each is as wide as a page of `article` at most."""
    parts = list(_chunks(board, PAGE, _narrow))
    tables = []
    for k, columns in enumerate(parts, start=1):
        part = f", part {k} of {len(parts)}" if len(parts) > 1 else ""
        notes = [r"\par\smallskip", " ".join(escape.latex(note) for note in board.notes)] if k == len(parts) else []
        tables.append("\n".join(_tex_table(board, columns, f"{board.title}{part}", notes)))
    return "\n\n".join(tables)


def _tex_table(board: ResultTable, columns: Sequence[Column], title: str, notes: Sequence[str]) -> Iterator[str]:
    heads = [_tex_cell(["upstream"]), *(_tex_cell([escape.latex(text) for text in _wrapped(c)]) for c in columns)]
    yield r"\begin{table}"
    yield r"\tiny\setlength{\tabcolsep}{3pt}"
    yield rf"\caption{{{escape.latex(title)}}}"
    yield rf"\begin{{tabular}}{{l{'r' * len(columns)}}}"
    yield from (r"\hline", " & ".join(heads) + r" \\", r"\hline")
    yield from _tex_body(board, columns)
    yield from (r"\hline", r"\end{tabular}", *notes, r"\end{table}")


def _chunks(
    board: ResultTable, width: int, lines: Callable[[Cell, Column], Sequence[str]]
) -> Iterator[tuple[Column, ...]]:
    """Cut the columns into tables that fit a width, in characters; each has one column at least."""
    name = max(8, *(len(_name(line)) for line in board.lines)) + 4
    rest = list(board.columns)
    while rest:
        taken: list[Column] = []
        left = width - name
        while rest and (not taken or left >= _width(board, rest[0], lines)):
            left -= _width(board, rest[0], lines)
            taken.append(rest.pop(0))
        yield tuple(taken)


def _width(board: ResultTable, column: Column, lines: Callable[[Cell, Column], Sequence[str]]) -> int:
    figures = [line.figures[column.place] for line in board.lines if column.place in line.figures]
    texts = [text for figure in figures for text in lines(figure, column)]
    return max(len(text) for text in [*_wrapped(column), *texts]) + 3


def _stacked(figure: Cell, column: Column) -> list[str]:
    """A figure, its interval, its difference: a line each."""
    return [text for text in figure.texts(column) if text]


def _narrow(figure: Cell, column: Column) -> list[str]:
    """The same on more lines: each bracket begins one, and each spread."""
    return [part for text in _stacked(figure, column) for part in re.split(r" (?=\[|±)", text)]


def _wrapped(column: Column) -> list[str]:
    """A heading on two lines: the task above the metric."""
    task = column.place[0].upper()
    return [task, column.title().removeprefix(task).strip()] if task else [column.title()]


def _rich_table(board: ResultTable, columns: Sequence[Column]) -> RichTable:
    from rich.table import Table

    table = Table(show_lines=True)
    table.add_column("upstream", no_wrap=True)
    for column in columns:
        table.add_column("\n".join(map(escape.rich, _wrapped(column))), justify="right", no_wrap=True)
    before = False
    for line in board.lines:
        if line.published and not before and table.row_count:
            table.add_section()
        before = line.published
        cells = [_rich_cell(column, line.figures.get(column.place)) for column in columns]
        name = escape.rich(_name(line))
        table.add_row(
            f"[italic]{name}[/italic]" if line.published else name, *cells, style="italic" if line.published else None
        )
    return table


def _rich_cell(column: Column, figure: Cell | None) -> str:
    if figure is None:
        return ""
    value, *more = map(escape.rich, _stacked(figure, column))
    return "\n".join([f"[bold]{value}[/bold]" if figure.rank else value, *more])


def _name(line: Row) -> str:
    return escape.short(line.name) + ("†" if line.published else "")


def _markdown_row(board: ResultTable, line: Row) -> list[str]:
    name = escape.markdown(_name(line))
    cells = [f"*{name}*" if line.published else name]
    for column in board.columns:
        figure = line.figures.get(column.place)
        cells.append("" if figure is None else _markdown_cell(column, figure, line.published))
    return cells


def _markdown_cell(column: Column, figure: Cell, published: bool) -> str:
    value, *more = (escape.markdown(text) for text in figure.texts(column))
    style = "**" if figure.rank else "*" if published else ""
    return " ".join(filter(None, [f"{style}{value}{style}", *more]))


def _tex_body(board: ResultTable, columns: Sequence[Column]) -> Iterator[str]:
    before = False
    for line in board.lines:
        if line.published and not before:
            yield r"\hline"
        before = line.published
        name = escape.latex(_name(line))
        cells = [_tex_cell([rf"\textit{{{name}}}" if line.published else name])]
        cells += [_tex_figure(column, line.figures.get(column.place), line.published) for column in columns]
        yield " & ".join(cells) + r" \\\noalign{\vskip3pt}"


def _tex_figure(column: Column, figure: Cell | None, published: bool) -> str:
    if figure is None:
        return ""
    value, *more = map(escape.latex, _narrow(figure, column))
    style = "textbf" if figure.rank else "textit" if published else ""
    return _tex_cell([rf"\{style}{{{value}}}" if style else value, *more])


def _tex_cell(lines: Sequence[str]) -> str:
    """Lines above one another, without any package."""
    if len(lines) == 1:
        return lines[0]
    return r"\begin{tabular}[t]{@{}r@{}}" + r" \\ ".join(lines) + r"\end{tabular}"
