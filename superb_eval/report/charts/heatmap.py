"""Heat maps: a matrix as squares, the greater the value the stronger the colour; missing values stay empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from superb_eval.report.charts import svg

WIDEST = 330.0
"""Width of a heat map with its labels, so that two fit side by side and one fits a phone."""

LEAST, MOST = 13.0, 34.0
"""Shortest and longest side of a square; in squares of `WRITTEN` and more the value is printed."""

WRITTEN = 22.0


@dataclass(frozen=True)
class Matrix:
    """What is drawn: `values[row][column]`, None where missing; `full` is the value with the strongest colour."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    full: float = 1.0
    format: str = ".2f"
    down: str = ""
    """What rows are."""
    across: str = ""
    """What columns are."""

    def text(self, value: float | None) -> str:
        """Return a value as text."""
        return "" if value is None else format(value, self.format)


def figure(key: str, title: str, note: str, matrix: Matrix) -> svg.Figure:
    """Return a heat map; its table holds the same figures."""
    label = min(120.0, 14.0 + 5.8 * max(map(len, matrix.rows), default=0))
    side = min(MOST, max(LEAST, (WIDEST - label) / max(1, len(matrix.columns))))
    left, top = label, 34.0
    parts = [svg.text(left, 12, matrix.across, class_="label"), svg.text(0, top - 6, matrix.down, class_="label")]
    parts += [_row(matrix, k, left, top + k * _height(side), side) for k in range(len(matrix.rows))]
    every = max(1, round(18 / side)) if _short(matrix.columns) else 1
    bottom = top + len(matrix.rows) * _height(side)
    parts += [_foot(name, left + k * side, bottom, side) for k, name in enumerate(matrix.columns) if k % every == 0]
    foot = 18.0 if _short(matrix.columns) else 12 + 4.6 * max(map(len, map(_cut, matrix.columns)))
    width = max(left + side * len(matrix.columns) + 2, 200)
    return svg.Figure(
        key=key,
        title=title,
        note=note,
        svg=svg.chart(
            key, title, note or "The stronger the colour, the greater the value.", (width, bottom + foot), *parts
        ),
        headings=("", *matrix.columns),
        rows=tuple((name, *map(matrix.text, row)) for name, row in zip(matrix.rows, matrix.values, strict=True)),
        wide=width > WIDEST + 60,
    )


def _height(side: float) -> float:
    return min(side, 24.0)


def _cut(name: str) -> str:
    return svg.shortened(name, 14)


def _short(names: Sequence[str]) -> bool:
    return all(len(name) <= 3 for name in names)


def _row(matrix: Matrix, k: int, left: float, y: float, side: float) -> Markup:
    height = _height(side)
    parts = [svg.text(left - 6, y + height / 2 + 4, svg.shortened(matrix.rows[k], 18), "end", _kind(side))]
    for column, value in enumerate(matrix.values[k]):
        if value is None:
            continue
        strength = min(1.0, max(0.0, value / matrix.full if matrix.full else 0.0))
        x, text = left + column * side, matrix.text(value)
        hint = svg.tag("title", f"{matrix.rows[k]}, {matrix.columns[column]}: {text}")
        size = {"width": side - 1, "height": height - 1}
        parts.append(svg.tag("rect", x=x, y=y, class_="square", **size))
        parts.append(svg.tag("rect", hint, x=x, y=y, class_="heat", fill_opacity=round(strength, 3), **size))
        if side >= WRITTEN:
            kind = "figure strong" if strength > 0.55 else "figure"
            written = text.removeprefix("0") or "0"
            parts.append(svg.text(x + side / 2 - 0.5, y + height / 2 + 3.5, written, "middle", kind))
    return Markup("").join(parts)


def _kind(side: float) -> str:
    return "tick" if side > 15 else "tick small"


def _foot(name: str, x: float, bottom: float, side: float) -> Markup:
    middle = x + side / 2
    if len(name) <= 3:
        return svg.text(middle, bottom + 14, name, "middle", "tick")
    rotated = f"rotate(-55 {svg.number(middle)} {svg.number(bottom + 8)})"
    return svg.tag(
        "text", _cut(name), x=middle + 3, y=bottom + 10, text_anchor="end", class_=_kind(side), transform=rotated
    )
