"""Charts of differences from the reference: each upstream's with their intervals, and all of them as a heat map."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from superb_eval.report import verdicts
from superb_eval.report.charts.figure import Figure, chart_of, domain, figure, tips
from superb_eval.report.charts.heatmap import Matrix, heatmap
from superb_eval.report.verdicts import OrientedDifference, short_name, task_columns
from superb_eval.results.table.result_table import ResultTable, Row

KINDS = ("better", "inconclusive", "worse", "untested")
COLOURS = [f"var(--{kind})" for kind in ("good", "inconclusive", "bad", "inconclusive")]
MARKS = ["triangle-right", "circle", "triangle-left", "cross"]


def forests(key: str, table: ResultTable) -> list[Figure]:
    """Return a chart of differences for each upstream compared with the reference, each on a scale of its own."""
    shown = [(row, _differences(row, table)) for row in table.rows]
    return [_forest(f"{key}-forest-{k}", table, row, found) for k, (row, found) in enumerate(shown) if found]


def _differences(row: Row, table: ResultTable) -> list[OrientedDifference]:
    cells = [(row.cells[column.key], column) for column in task_columns(table) if column.key in row.cells]
    return [found for cell, column in cells if (found := verdicts.oriented(cell, column))]


def _forest(key: str, table: ResultTable, row: Row, found: Sequence[OrientedDifference]) -> Figure:
    names = [short_name(d.column) for d in found]
    texts = [row.cells[d.column.key].texts(d.column) for d in found]
    rows = [
        {"metric": name, "value": d.value, "low": d.low, "high": d.high, "kind": d.verdict}
        | {"figure": " ".join(text[:2]), "difference": text[2], "verdict": verdicts.WORDS[d.verdict]}
        for name, d, text in zip(names, found, texts, strict=True)
    ]
    base = chart_of("differences").encode(
        y=alt.Y(
            "metric:N", scale=alt.Scale(domain=domain(names)), axis=alt.Axis(title=None, domain=False, ticks=False)
        ),
        color=alt.Color("kind:N", scale=alt.Scale(domain=KINDS, range=COLOURS), legend=None),
        tooltip=tips(metric="metric", figure="figure", difference="difference", verdict="verdict"),
    )
    whisker = base.mark_rule(strokeWidth=1.5).encode(
        x=alt.X("low:Q", title="← worse · points · better →", axis=alt.Axis(tickCount=5)), x2=alt.X2("high:Q")
    )
    points = base.mark_point(filled=True, size=65, opacity=1).encode(
        x=alt.X("value:Q"), shape=alt.Shape("kind:N", scale=alt.Scale(domain=KINDS, range=MARKS), legend=None)
    )
    zero = chart_of("zero").mark_rule(color="var(--ink)").encode(x=alt.X("zero:Q"))
    table_rows = [(d.column.title(), *text) for d, text in zip(found, texts, strict=True)]
    return figure(
        (zero + whisker + points).properties(height=20 * len(found)),
        {"differences": rows, "zero": [{"zero": 0}]},
        key,
        f"{row.name} against {table.reference}",
        "Differences with 95 % intervals, better to the right.",
        (("metric", "figure", "interval", f"difference from {table.reference}"), table_rows),
    )


def relative(key: str, table: ResultTable) -> Figure | None:
    """Return the differences of all upstreams as a heat map, better and worse in two colours; None: there are none."""
    differences = {row.name: {d.column: d for d in _differences(row, table)} for row in table.rows}
    compared = {name: found for name, found in differences.items() if found}
    columns = [column for column in task_columns(table) if any(column in found for found in compared.values())]
    if not compared:
        return None
    matrix = Matrix(
        rows=tuple(compared),
        columns=tuple(map(short_name, columns)),
        values=tuple(tuple(found[c].value if c in found else None for c in columns) for found in compared.values()),
        format="+.1f",
        down="upstream",
        across="metric",
        signs=tuple(
            tuple(verdicts.SIGNS[found[c].verdict] if c in found else "" for c in columns)
            for found in compared.values()
        ),
        diverging=True,
    )
    return heatmap(
        key,
        f"All differences from {table.reference}",
        matrix,
        note="In points, oriented so that + is better: ▲ better and ▼ worse beyond chance, ≈ inconclusive.",
        wide=True,
    )
