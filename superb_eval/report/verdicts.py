"""How a figure compares with the reference's: better, worse, inconclusive, or not tested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from superb_eval.results.table.result_table import Cell, Column, ResultTable

Verdict = Literal["better", "inconclusive", "worse", "untested", ""]
"""Empty: there is nothing to compare with, or neither direction is better."""

SIGNS: Mapping[Verdict, str] = {"better": "▲", "inconclusive": "≈", "worse": "▼", "untested": "?", "": ""}

WORDS: Mapping[Verdict, str] = {
    "better": "better beyond chance",
    "inconclusive": "inconclusive",
    "worse": "worse beyond chance",
    "untested": "not tested: the variance of training is unknown",
    "": "",
}


def verdict(cell: Cell, column: Column) -> Verdict:
    """Return how a cell compares with the reference's."""
    difference = cell.difference
    if difference is None or not difference.tested or column.higher_is_better is None:
        return ""
    if difference.p is None:
        return "untested"
    better = cell.better_than_reference(column)
    return "inconclusive" if better is None else "better" if better else "worse"


class OrientedDifference(NamedTuple):
    """A cell's difference from the reference with the ends of its interval, oriented so that more is better."""

    column: Column
    value: float
    low: float
    high: float
    verdict: Verdict


def oriented(cell: Cell, column: Column) -> OrientedDifference | None:
    """Return a cell's difference; None where it was not tested against chance: it has no interval then."""
    d, kind = cell.difference, verdict(cell, column)
    if d is None or not kind:
        return None
    if column.higher_is_better:
        return OrientedDifference(column, d.value, d.low, d.high, kind)
    return OrientedDifference(column, -d.value, -d.high, -d.low, kind)


def task_columns(table: ResultTable) -> list[Column]:
    """Return the columns that belong to tasks, and not to the upstream."""
    return [column for column in table.columns if column.key[0]]


def short_name(column: Column) -> str:
    """Return a short name, such as `PR PER`."""
    return f"{column.key[0].upper()} {column.heading}"
