"""Confusion matrices, where an utterance has one label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import altair as alt

from downstreams.base import Prediction
from superb_eval.report.charts.figure import Figure, chart_of, domain, figure, tips
from superb_eval.report.charts.heatmap import Matrix, heatmap

MOST_LABELS = 40
"""With more labels a matrix is unreadable: the most frequent confusions are listed instead."""

MOST_PAIRS = 20


def confusion(key: str, name: str, task: str, rows: Sequence[Prediction]) -> Figure:
    """Return the confusion matrix: rows are the truth, in percent of that label's utterances."""
    counts = Counter((row.truth, row.answer) for row in rows)
    labels = tuple(sorted({label for pair in counts for label in pair}))
    title = f"{task.upper()} confusions: {name}"
    if len(labels) > MOST_LABELS:
        return _most_frequent(key, title, counts)
    totals = Counter(row.truth for row in rows)
    values = tuple(
        tuple(100 * counts[truth, answer] / totals[truth] if counts[truth, answer] else None for answer in labels)
        for truth in labels
    )
    matrix = Matrix(labels, labels, values, full=100, format=".0f", down="truth", across="predicted")
    return heatmap(key, title, matrix)


def _most_frequent(key: str, title: str, counts: Mapping[tuple[str, str], int]) -> Figure:
    wrong = sorted(((n, *pair) for pair, n in counts.items() if pair[0] != pair[1]), key=lambda c: (-c[0], c[1:]))
    shown = wrong[:MOST_PAIRS]
    rows = [{"pair": f"{truth} → {answer}", "count": n, "text": str(n)} for n, truth, answer in shown]
    bars = (
        chart_of("pairs")
        .mark_bar(color="var(--accent)", height={"band": 0.7})
        .encode(
            x=alt.X("count:Q", title="utterances", axis=alt.Axis(tickMinStep=1, tickCount=4)),
            y=alt.Y("pair:N", title=None, scale=alt.Scale(domain=domain([str(row["pair"]) for row in rows]))),
            tooltip=tips(pair="truth → predicted", text="utterances"),
        )
    )
    note = f"The {len(shown)} most frequent of {len(wrong)} kinds of confusion: truth → predicted."
    return figure(
        bars.properties(height=17 * max(1, len(shown))),
        {"pairs": rows},
        key,
        title,
        note,
        (("truth", "predicted", "utterances"), [(truth, answer, str(n)) for n, truth, answer in shown]),
        note,
    )
