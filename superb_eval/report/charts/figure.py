"""What every chart of a report shares: its specification in Vega-Lite, its colours, and its figures as a table.

Text from outside (names of upstreams, labels, headings) reaches a chart as values of its data, ends of its scales, and
titles: never as a field's name or part of an expression, which Vega would evaluate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from superb_eval.report.markup import clean

SERIES = 8
"""Colours of upstreams in the style sheet, `--s1` to `--s8`; later ones reuse them."""

SHAPES = ("circle", "square", "triangle-up", "diamond")

CONFIG: dict[str, Any] = {
    "background": "var(--paper)",
    "font": "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, sans-serif",
    "padding": 2,
    "aria": False,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "labelFontSize": 11,
        "labelLimit": 150,
        "titleColor": "var(--muted)",
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "gridColor": "var(--rule)",
        "domainColor": "var(--muted)",
        "tickColor": "var(--muted)",
        "tickSize": 4,
    },
    "legend": {
        "orient": "top",
        "title": None,
        "labelColor": "var(--ink)",
        "labelFontSize": 11,
        "labelLimit": 150,
        "columns": 2,
        "symbolSize": 55,
        "symbolOpacity": 1,
        "rowPadding": 2,
        "columnPadding": 14,
        "offset": 8,
    },
    "text": {"color": "var(--ink)", "fontSize": 11},
    "rule": {"color": "var(--muted)"},
}
"""The look of all charts, in colours of the style sheet: the page's script replaces `var(--...)` by the colour."""

DataRow = dict[str, Any]
"""A row of a chart's data, by field."""


@dataclass(frozen=True)
class Figure:
    """A chart, and the figures it shows as a table.

    `key` is unique in a page and makes ids. `description` is read by screen readers. `wide`: it spans the page, and is
    scrolled on a phone.
    """

    key: str
    title: str
    note: str
    description: str
    spec: dict[str, Any]
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    wide: bool = False


def figure(
    chart: alt.LayerChart | alt.Chart,
    datasets: Mapping[str, Sequence[DataRow]],
    key: str,
    title: str,
    description: str,
    table: tuple[Sequence[str], Sequence[Sequence[str]]],
    note: str = "",
    wide: bool = False,
) -> Figure:
    """Return a chart of named data sets with its table (headings, rows), as wide as the page gives it.

    Of the data, numbers keep five significant digits, and are left out where infinite; text is in one line.
    """
    headings, rows = table
    sized = chart.properties(width="container", description=clean(f"{title}. {description}"))
    # Altair tests each part as it is made; the tests test whole charts, of every kind.
    spec = {name: part for name, part in sized.to_dict(validate=False).items() if name not in {"$schema", "config"}}
    spec["datasets"] = {name: [_compact_row(row) for row in of_name] for name, of_name in datasets.items()}
    return Figure(key, title, note, description, spec, tuple(headings), tuple(map(tuple, rows)), wide)


def chart_of(dataset: str) -> alt.Chart:
    """Return a chart of a data set of that name, which `figure` is given."""
    return alt.Chart(alt.NamedData(dataset))


def _compact_row(row: DataRow) -> DataRow:
    return {name: _compact(value) for name, value in row.items()}


def _compact(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return clean(value) if isinstance(value, str) else value


def upstream_colour(names: Sequence[str]) -> alt.Color:
    """Return the colours of upstreams, given all names of the page: the same in every chart."""
    return alt.Color("upstream:N", scale=upstream_scale(names), sort=None)


def upstream_scale(names: Sequence[str]) -> alt.Scale:
    """Return the scale of upstreams' colours."""
    return alt.Scale(domain=domain(names), range=[f"var(--s{k % SERIES + 1})" for k in range(len(names))])


def upstream_shape(names: Sequence[str]) -> alt.Shape:
    """Return the marks of upstreams, given all names of the page."""
    shapes = [SHAPES[k % len(SHAPES)] for k in range(len(names))]
    return alt.Shape("upstream:N", scale=alt.Scale(domain=domain(names), range=shapes), sort=None)


def domain(names: Sequence[str]) -> list[str]:
    """Return names in the order of a scale, as data sets hold them."""
    return list(dict.fromkeys(map(clean, names)))


def zoom(name: str) -> alt.Parameter:
    """Return what moves a chart by dragging and zooms it by Shift and the wheel, so that the page still scrolls."""
    return alt.selection_interval(
        name=name,
        bind="scales",
        translate="[mousedown, window:mouseup] > window:mousemove!",
        zoom="wheel![event.shiftKey]",
    )


def tips(**titles: str) -> list[alt.Tooltip]:
    """Return a tooltip that shows text fields under those titles."""
    return [alt.Tooltip(f"{name}:N", title=title) for name, title in titles.items()]
