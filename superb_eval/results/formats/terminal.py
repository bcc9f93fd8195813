"""A result table for a terminal, drawn by rich."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from superb_eval.results.formats import escape, layout
from superb_eval.results.table import costs, totals
from superb_eval.results.table.result_table import Cell, Column, ResultTable
from superb_eval.runtime import screen

if TYPE_CHECKING:
    from rich.table import Table as RichTable

CellText = Callable[[Column, Cell], str]
"""Returns a cell as rich's markup."""

EXTRA = tuple(column.key for column in (costs.PARAMETERS, costs.SPEED, costs.MACS, totals.RETAINED_S, totals.RETAINED))
"""Columns that a compact table leaves out where they don't fit, the last first."""

COMPACT_NOTE = "Left out here: {} (--wide). {}: distinguishably better, worse than {}."
"""Under a compact table."""

BEST, BETTER, WORSE = "^", "+", "-"
"""After a figure in plain text, in place of bold, green and red."""


def text(tables: Sequence[ResultTable], wide: bool | None, to_file: bool) -> str:
    """Return tables as a terminal shows them; for a file, or another program, in plain text.

    Args:
        tables: to be shown, one below the other.
        wide: whether with intervals and differences; None: where one table with them fits the terminal's width.
        to_file: whether no terminal will show them.
    """
    from rich.console import Console

    console = screen.console()
    plain = to_file or not console.is_terminal
    console = Console(width=console.width, color_system=None) if plain else console
    with console.capture() as capture:
        for table in tables:
            compact = not (fits(table, console.width) if wide is None else wide)
            shown = without_styles(table, compact) if plain else table
            console.print(title(shown), highlight=False, soft_wrap=True)
            for number, part in enumerate((compact_tables if compact else wide_tables)(shown, console.width)):
                if number and compact:
                    console.print()
                console.print(part)
            notes_below = compact_notes(shown, console.width, plain) if compact else notes(shown)
            console.print(notes_below, highlight=False)
            console.print()
    return "\n".join(line.rstrip() for line in capture.get().split("\n")) if plain else capture.get()


def without_styles(table: ResultTable, compact: bool) -> ResultTable:
    """Return a table with marks after its figures that mean what bold means, and in a compact table colours."""

    def mark(cell: Cell, column: Column) -> str:
        better = cell.better_than_reference(column)
        if cell.rank == "best":  # which is better than the reference too
            return BEST
        return "" if better is None or cell.at_chance or not compact else BETTER if better else WORSE

    rows = []
    for row in table.rows:
        found = [(column, row.cells[column.key]) for column in table.columns if column.key in row.cells]
        cells = {column.key: replace(cell, marks=cell.marks + mark(cell, column)) for column, cell in found}
        rows.append(replace(row, cells=cells))
    captions = (note.replace("Bold with =:", "=").replace("Bold:", BEST) for note in table.notes)
    return replace(table, rows=tuple(rows), notes=tuple(captions))


def fits(table: ResultTable, width: int) -> bool:
    """Return whether one table with intervals and differences fits a width, in characters."""
    return len(list(layout.chunks(table, width, layout.stacked))) <= 1


def wide_tables(table: ResultTable, width: int) -> list[RichTable]:
    """Return a table for a terminal of that width, in characters: columns that don't fit follow in further tables."""
    from rich.table import Table

    parts = layout.chunks(table, width, layout.stacked)
    return [_drawn(table, columns, Table(show_lines=True), layout.heading, _wide_cell) for columns in parts]


def compact_tables(table: ResultTable, width: int) -> list[RichTable]:
    """Return the same in a line a row: one decimal, and colours in place of intervals and differences.

    Of the columns about the upstream itself, those are left out that would make a second table.
    """
    from rich import box
    from rich.table import Table

    found = replace(table, columns=_compact_columns(table, width))
    parts = layout.chunks(found, width, _one_line, layout.short_heading, padding=1)
    style = {"box": box.SIMPLE_HEAD, "padding": 0, "show_edge": False}
    return [_drawn(found, columns, Table(**style), layout.short_heading, _compact_cell) for columns in parts]  # type: ignore[arg-type]


def title(table: ResultTable) -> str:
    """Return a table's title; it may be wider than the table."""
    return f"[bold]{escape.rich(table.title)}[/bold]"


def notes(table: ResultTable) -> str:
    """Return a table's notes."""
    return escape.rich(" ".join(table.notes))


def compact_notes(table: ResultTable, width: int, plain: bool = False) -> str:
    """Return the notes under a compact table; in plain text its colours are marks."""
    shown = {column.key for column in _compact_columns(table, width)}
    missing = [column.title() for column in table.columns if column.key not in shown]
    left_out = ", ".join(["intervals and differences", *missing])
    colours = f"{BETTER}, {WORSE}" if plain else "Green, red"
    reference = table.reference or "the reference (--against)"
    return escape.rich(COMPACT_NOTE.format(left_out, colours, reference) + " ") + notes(table)


def _compact_columns(table: ResultTable, width: int) -> tuple[Column, ...]:
    columns = tuple(replace(column, decimals=min(1, column.decimals)) for column in table.columns)
    extra = [column.key for column in columns if column.key in EXTRA]
    while extra:
        found = replace(table, columns=columns)
        if len(list(layout.chunks(found, width, _one_line, layout.short_heading, padding=1))) == 1:
            break
        last = extra.pop()
        columns = tuple(column for column in columns if column.key != last)
    return columns


def _one_line(cell: Cell, column: Column) -> list[str]:
    return [cell.texts(column)[0]]


def _drawn(
    table: ResultTable, columns: Sequence[Column], drawn: RichTable, heading: layout.Heading, cell_text: CellText
) -> RichTable:
    drawn.add_column("upstream", no_wrap=True)
    for column in columns:
        drawn.add_column("\n".join(map(escape.rich, heading(column))), justify="right", no_wrap=True)
    published_before = False
    for row in table.rows:
        if row.published and not published_before and drawn.row_count:
            drawn.add_section()
        published_before = row.published
        found = ((column, row.cells.get(column.key)) for column in columns)
        cells = ["" if cell is None else cell_text(column, cell) for column, cell in found]
        name = escape.rich(layout.name(row))
        name = f"[italic]{name}[/italic]" if row.published else name
        drawn.add_row(name, *cells, style="italic" if row.published else None)
    return drawn


def _wide_cell(column: Column, cell: Cell) -> str:
    value, *more = map(escape.rich, layout.stacked(cell, column))
    if cell.at_chance:
        return "\n".join(f"[dim]{text}[/dim]" for text in (value, *more))
    return "\n".join([f"[bold]{value}[/bold]" if cell.rank else value, *more])


def _compact_cell(column: Column, cell: Cell) -> str:
    styles = ["dim"] if cell.at_chance else ["bold"] if cell.rank else []
    better = cell.better_than_reference(column)
    styles += [] if better is None else ["green"] if better else ["red"]
    value = escape.rich(cell.texts(column)[0])
    return f"[{' '.join(styles)}]{value}[/]" if styles else value
