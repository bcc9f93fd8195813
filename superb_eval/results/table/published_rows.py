"""Rows of published figures, and measured rows with differences from one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from superb_eval.results.published import PublishedSystem
from superb_eval.results.stats import differences
from superb_eval.results.stats.differences import Difference
from superb_eval.results.table import costs
from superb_eval.results.table.result_table import Cell, ColumnKey, Row


def rows_of(systems: Sequence[PublishedSystem], reference: PublishedSystem | None) -> list[Row]:
    """Return published systems as rows, the reference first, with differences from it."""
    return [
        Row(system.name, _published_cells(system, reference), published=True, source=system.source)
        for system in sorted(systems, key=lambda system: system is not reference)
    ]


def _published_cells(system: PublishedSystem, reference: PublishedSystem | None) -> dict[ColumnKey, Cell]:
    cells = {costs.PARAMETERS.key: Cell(system.parameters_m)}
    for key, value in system.values.items():
        cells[key] = Cell(value, difference=_published_difference(system, reference, key))
    return cells


def _published_difference(
    system: PublishedSystem, reference: PublishedSystem | None, key: ColumnKey
) -> Difference | None:
    if reference is None or system is reference or key not in reference.values:
        return None
    if key in system.folds and key in reference.folds:
        return differences.paired_folds(system.folds[key], reference.folds[key])
    return differences.unpaired(system.values[key], reference.values[key])


def with_differences(rows: list[Row], reference: PublishedSystem | None) -> list[Row]:
    """Return measured rows with unpaired differences from a published reference: it has no predictions to pair with."""
    if reference is None:
        return rows
    return [
        replace(
            row,
            cells={
                key: replace(cell, difference=differences.unpaired(cell.value, reference.values[key]))
                if key in reference.values
                else cell
                for key, cell in row.cells.items()
            },
        )
        for row in rows
    ]
