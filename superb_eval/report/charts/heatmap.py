"""Heat maps: a matrix as squares, the greater the value the stronger the colour; missing values stay empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import altair as alt

from superb_eval.report.charts.figure import DataRow, Figure, chart_of, domain, figure, tips

TALLEST, LOWEST, HEIGHT = 20.0, 9.0, 330.0
"""Most and least height of a square, and about that of a large heat map, in CSS pixels."""

WRITTEN = 16
"""With more columns than that, values are not printed in the squares; tooltips and the table hold them."""


NAMED_BY_LABELS = {"upstream", "metric", "task"}
"""What needs no title on its axis."""


@dataclass(frozen=True)
class Matrix:
    """What is drawn: `values[row][column]`, None where missing.

    `full` is the value with the strongest colour; None: the greatest. `signs` follow the printed values. `diverging`:
    values below and above 0 have two colours.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    full: float | None = None
    format: str = ".2f"
    down: str = "row"
    """What rows are, in words of this package."""
    across: str = "column"
    """What columns are, in words of this package."""
    signs: tuple[tuple[str, ...], ...] = ()
    diverging: bool = False

    def text(self, row: int, column: int) -> str:
        """Return a value as text."""
        value = self.values[row][column]
        return "" if value is None else format(value, self.format)

    def limit(self) -> float:
        """Return the value with the strongest colour; above 0."""
        largest = max((abs(value) for row in self.values for value in row if value is not None), default=0.0)
        return self.full or largest or 1.0

    def height(self) -> float:
        """Return the height of all rows, in CSS pixels."""
        return len(self.rows) * min(TALLEST, max(LOWEST, HEIGHT / max(1, len(self.rows))))

    def data_rows(self) -> list[DataRow]:
        """Return a row of data for each value."""
        return [
            {
                "row": name,
                "column": column,
                "value": value,
                "figure": self.text(i, j),
                "shown": f"{self.text(i, j).removeprefix('0') or '0'}{self.signs[i][j] if self.signs else ''}",
                "strong": int(abs(value) > 0.55 * self.limit()),
            }
            for i, name in enumerate(self.rows)
            for j, column in enumerate(self.columns)
            if (value := self.values[i][j]) is not None
        ]


def heatmap(key: str, title: str, matrix: Matrix, note: str = "", wide: bool = False) -> Figure:
    """Return a heat map; its table holds the same figures."""
    base = chart_of("squares").encode(
        x=alt.X("column:N", scale=alt.Scale(domain=domain(matrix.columns), padding=0), axis=_across(matrix)),
        y=alt.Y("row:N", scale=alt.Scale(domain=domain(matrix.rows), padding=0), axis=_down(matrix)),
    )
    squares = base.mark_rect(stroke="var(--paper)", strokeWidth=1).encode(
        color=alt.Color("value:Q", scale=_colours(matrix), legend=None),
        tooltip=tips(row=matrix.down, column=matrix.across, figure="value"),
    )
    ink = alt.Scale(domain=[0, 1], range=["var(--ink)", "var(--paper)"])
    written = base.mark_text(fontSize=10).encode(
        text=alt.Text("shown:N"), color=alt.Color("strong:N", scale=ink, legend=None)
    )
    layers = [squares, written] if len(matrix.columns) <= WRITTEN else [squares]
    rows = [(name, *(matrix.text(i, j) for j in range(len(matrix.columns)))) for i, name in enumerate(matrix.rows)]
    return figure(
        alt.LayerChart(layer=layers, view=alt.ViewBackground(stroke="var(--rule)"))
        .resolve_scale(color="independent")
        .properties(height=matrix.height()),
        {"squares": matrix.data_rows()},
        key,
        title,
        "The stronger the colour, the greater the value.",
        (("", *matrix.columns), rows),
        note,
        wide,
    )


def _colours(matrix: Matrix) -> alt.Scale:
    most = matrix.limit()
    if matrix.diverging:
        colours = ["var(--bad)", "var(--panel)", "var(--good)"]
        return alt.Scale(domain=[-most, 0, most], range=colours, interpolate="rgb", clamp=True)
    return alt.Scale(domain=[0, most], range=["var(--panel)", "var(--accent)"], interpolate="rgb", clamp=True)


def _across(matrix: Matrix) -> alt.Axis:
    """The axis of columns: long labels are slanted where they are few, and upright where they are many."""
    long = any(len(name) > 3 for name in matrix.columns) and not matrix.diverging
    angle = 0 if not long else -45 if len(matrix.columns) <= WRITTEN else -90
    overlap: bool | Literal["greedy"] = "greedy" if len(matrix.columns) > WRITTEN else False
    title = _title(matrix.across)
    return alt.Axis(title=title, orient="top", labelAngle=angle, labelOverlap=overlap, domain=False, ticks=False)


def _down(matrix: Matrix) -> alt.Axis:
    return alt.Axis(title=_title(matrix.down), labelOverlap="greedy", domain=False, ticks=False, labelLimit=130)


def _title(words: str) -> str | None:
    return None if words in NAMED_BY_LABELS else words
