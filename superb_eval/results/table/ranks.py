"""Which figure of a column is best, and which are not distinguishable from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from superb_eval.results.folder import RunGroups
from superb_eval.results.stats.differences import holm
from superb_eval.results.stats.paired_comparison import PairedComparison
from superb_eval.results.table.result_table import Column, Rank, Row


def rank_rows(
    rows: Sequence[Row], columns: Sequence[Column], groups: RunGroups, comparison: PairedComparison
) -> list[Row]:
    """Return measured rows with the best figure of each column marked, and those tied with it.

    Tied are figures whose paired difference from the best is not distinguishable from none, at 5 % over the whole
    column. Figures on other data than the best, or with a training variance that is unknown, can't be compared with it
    and get no rank; neither does what is not above chance, the only figure of a column, nor a best that nothing could
    be compared with.
    """
    ranks: dict[tuple[str, tuple[str, str]], Rank] = {}
    for column in columns:
        ranked = [row for row in rows if column.key in row.cells and not row.cells[column.key].at_chance]
        if len(ranked) > 1:
            ranks |= {(name, column.key): rank for name, rank in _ranks(ranked, column, groups, comparison).items()}
    return [
        replace(row, cells={k: replace(cell, rank=ranks.get((row.name, k), "")) for k, cell in row.cells.items()})
        for row in rows
    ]


def _ranks(rows: Sequence[Row], column: Column, groups: RunGroups, comparison: PairedComparison) -> dict[str, Rank]:
    task, key = column.key
    sign = 1 if column.higher_is_better else -1
    best = max(rows, key=lambda row: sign * row.cells[column.key].value)
    found = {
        row.name: comparison.difference(groups[row.name, task], groups[best.name, task], key)
        for row in rows
        if row is not best
    }
    tests = holm({name: difference for name, difference in found.items() if difference and difference.p is not None})
    if any(difference and difference.p is None for difference in found.values()):
        return {}
    tied = [name for name, difference in tests.items() if not difference.distinguishable]
    rank: Rank = "tied" if tied else "best"
    return {best.name: rank, **dict.fromkeys(tied, rank)}
