"""Which figure of a column is best, and which can't be told from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from superb_eval.results.folder import RunGroup
from superb_eval.results.stats.intervals import Difference
from superb_eval.results.stats.paired_comparison import Evidence
from superb_eval.results.table.result_table import Column, Rank, Row


def ranked(
    lines: Sequence[Row], columns: Sequence[Column], cells: Mapping[tuple[str, str], RunGroup], evidence: Evidence
) -> list[Row]:
    """Return measured lines with the best figure of each column marked, and those tied with it.

    Tied are figures whose paired difference from the best can't be told from chance. Cells of other data than the best
    can't be compared with it and get no rank; where a column has one figure alone, there is nothing to rank.
    """
    found: dict[tuple[str, tuple[str, str]], Rank] = {}
    for column in columns:
        there = [line for line in lines if column.place in line.figures]
        if len(there) > 1:
            found |= {(name, column.place): rank for name, rank in _ranks(there, column, cells, evidence).items()}
    return [
        replace(line, figures={p: replace(f, rank=found.get((line.name, p), "")) for p, f in line.figures.items()})
        for line in lines
    ]


def _ranks(
    lines: Sequence[Row], column: Column, cells: Mapping[tuple[str, str], RunGroup], evidence: Evidence
) -> dict[str, Rank]:
    task, key = column.place
    sign = 1 if column.higher_is_better else -1
    best = max(lines, key=lambda line: sign * line.figures[column.place].value)
    differences = {
        line.name: evidence.difference(cells[line.name, task], cells[best.name, task], key)
        for line in lines
        if line is not best
    }
    tied = [name for name, difference in differences.items() if difference and not difference.distinguishable]
    rank: Rank = "tied" if tied else "best"
    return {best.name: rank, **dict.fromkeys(tied, rank)}


def plain_difference(ours: float, theirs: float) -> Difference:
    """Return a difference that nothing was resampled for: no interval, and nothing is said of chance."""
    return Difference(ours - theirs, math.nan, math.nan, "")
