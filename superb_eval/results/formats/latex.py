r"""A result table as LaTeX: one `tabular` with the rules of booktabs, as large as the width of a page allows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from superb_eval.results.formats import escape, layout
from superb_eval.results.table.result_table import Cell, Column, ResultTable

PREAMBLE = r"% needs \usepackage{booktabs,graphicx}"

SIZES = {"small": 60, "footnotesize": 69, "scriptsize": 80, "tiny": 110}
r"""Font sizes, and the characters that they print on a line of `article`, 345 points wide."""


def latex(table: ResultTable) -> str:
    r"""Return a table as LaTeX, in the largest font in which it is no wider than a page of `article`.

    Where it is wider in `\tiny`, further columns follow in further tables; figures alone are one table in any case,
    scaled to the width of the page.
    """
    parts = [table.columns]
    if _has_intervals(table):
        parts = list(layout.chunks(table, SIZES["tiny"], layout.narrow, layout.short_heading))
    tables = []
    for k, columns in enumerate(parts, start=1):
        part = f", part {k} of {len(parts)}" if len(parts) > 1 else ""
        label = f"{_slug(table.label)}{f'-{k}' if len(parts) > 1 else ''}"
        notes = [r"\par\smallskip", " ".join(escape.latex(note) for note in table.notes)] if k == len(parts) else []
        tables.append("\n".join(_table(table, columns, f"{table.title}{part}", label, notes)))
    return "\n\n".join([PREAMBLE, *tables])


def _table(
    table: ResultTable, columns: Sequence[Column], title: str, label: str, notes: Sequence[str]
) -> Iterator[str]:
    size = _size(table, columns)
    heads = [_lines(["upstream"]), *(_lines([escape.latex(text) for text in layout.short_heading(c)]) for c in columns)]
    yield r"\begin{table}"
    yield rf"\centering\{size or 'small'}\setlength{{\tabcolsep}}{{3pt}}"
    yield rf"\caption{{{escape.latex(title)}}}"
    yield rf"\label{{tab:{label}}}"
    if not size:
        yield r"\resizebox{\textwidth}{!}{%"
    yield rf"\begin{{tabular}}{{l{'r' * len(columns)}}}"
    yield from (r"\toprule", " & ".join(heads) + r" \\", r"\midrule")
    yield from _body(table, columns)
    yield from (r"\bottomrule", r"\end{tabular}" + ("" if size else "}"), *notes, r"\end{table}")


def _has_intervals(table: ResultTable) -> bool:
    cells = [cell for row in table.rows for cell in row.cells.values()]
    return any(cell.low is not None or cell.difference is not None for cell in cells)


def _size(table: ResultTable, columns: Sequence[Column]) -> str:
    """Return the largest font that fits; empty: none does."""
    widths = [
        layout.names_width(table),
        *(layout.column_width(table, c, layout.narrow, layout.short_heading) for c in columns),
    ]
    needed = sum(widths) + 3 * len(widths)
    return next((size for size, characters in SIZES.items() if characters >= needed), "")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _body(table: ResultTable, columns: Sequence[Column]) -> Iterator[str]:
    published_before = False
    for row in table.rows:
        if row.published and not published_before:
            yield r"\midrule"
        published_before = row.published
        name = escape.latex(layout.name(row))
        cells = [_lines([rf"\textit{{{name}}}" if row.published else name])]
        cells += [_cell(column, row.cells.get(column.key), row.published) for column in columns]
        yield " & ".join(cells) + r" \\ \addlinespace"


def _cell(column: Column, cell: Cell | None, published: bool) -> str:
    if cell is None:
        return ""
    value, *more = map(escape.latex, layout.narrow(cell, column))
    style = "textbf" if cell.rank else "textit" if published else ""
    return _lines([rf"\{style}{{{value}}}" if style else value, *more])


def _lines(lines: Sequence[str]) -> str:
    """Return stacked lines."""
    if len(lines) == 1:
        return lines[0]
    return r"\begin{tabular}[t]{@{}r@{}}" + r" \\ ".join(lines) + r"\end{tabular}"
