"""The columns that sum an upstream up: superb_s, the mean of all metrics, and the % retained of the reference's.

Undefined where a task is missing; never averaged around.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from superb_eval.results.folder import RunGroup, RunGroups
from superb_eval.results.stats import differences, intervals, overall, training_spread
from superb_eval.results.stats.intervals import Draws
from superb_eval.results.stats.paired_comparison import PairedComparison
from superb_eval.results.stats.training_spread import Variance
from superb_eval.results.table.result_table import Cell, Column, ColumnKey, Row

SUPERB_S = Column(("", "superb_s"), "superb_s", "points", higher_is_better=True, decimals=1)
MEAN = Column(("", "mean"), "mean", "%", higher_is_better=True)
RETAINED_S = Column(("", "retained_superb_s"), "superb_s retained", "%", higher_is_better=True, decimals=1)
RETAINED = Column(("", "retained_mean"), "mean retained", "%", higher_is_better=True, decimals=1)
RETAINED_COLUMN = {SUPERB_S: RETAINED_S, MEAN: RETAINED}

COLUMNS = (SUPERB_S, RETAINED_S, MEAN, RETAINED)
FORMULAS = {SUPERB_S: overall.superb_s, MEAN: overall.mean_of_metrics}

UNITS = "test units of all tasks"


@dataclass(frozen=True)
class _RowTotals:
    """A row with its overall figures, and those figures on each resample where its predictions can be read.

    `training` are their variances between trainings; None where that of a task is unknown.
    """

    row: Row
    groups: Mapping[str, RunGroup]
    draws: Mapping[Column, Draws]
    training: Mapping[Column, Variance | None]


def with_totals(
    rows: Sequence[Row],
    groups: RunGroups,
    comparison: PairedComparison,
    reference: str | None,
    *,
    official: bool,
) -> tuple[list[Row], tuple[Column, ...]]:
    """Return rows with their overall figures, and the columns for them: those that some row has.

    superb_s is anchored at figures of the official corpora, so it is left out for others.
    """
    columns = (SUPERB_S, MEAN) if official else (MEAN,)
    done = [_row_totals(row, _groups_of(row.name, groups), columns, comparison) for row in rows]
    reference_totals = next((total for total in done if total.row.name == reference), None)
    compared = [_compared(total, reference_totals, comparison) if reference_totals else total.row for total in done]
    return compared, _columns(compared)


def with_published(
    measured: Sequence[Row], published: Sequence[Row], reference: str | None
) -> tuple[list[Row], tuple[Column, ...]]:
    """Return measured and published rows with overall figures, and the columns for them.

    `reference` names a published row: the others get unpaired differences from it. Measured rows have their totals.
    """
    done = list(measured)
    for row in published:
        values = {key: cell.value for key, cell in row.cells.items()}
        totals = {column.key: formula(values) for column, formula in FORMULAS.items()}
        done.append(_with_cells(row, {key: Cell(value) for key, value in totals.items() if value is not None}))
    reference_totals = next((row for row in done if row.published and row.name == reference), None)
    compared = [_with_unpaired(row, reference_totals) if reference_totals else row for row in done]
    return compared, _columns(compared)


def _groups_of(name: str, groups: RunGroups) -> dict[str, RunGroup]:
    return {task: group for (upstream, task), group in groups.items() if upstream == name}


def _with_cells(row: Row, more: Mapping[ColumnKey, Cell]) -> Row:
    return replace(row, cells={**row.cells, **more})


def _columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    filled = {key for row in rows for key in row.cells}
    return tuple(column for column in COLUMNS if column.key in filled)


def _row_totals(
    row: Row, groups: Mapping[str, RunGroup], columns: Sequence[Column], comparison: PairedComparison
) -> _RowTotals:
    """Where a task is missing, nothing is added; where predictions are missing, which is reported, no interval."""
    values = {key: cell.value for key, cell in row.cells.items()}
    if overall.missing(values):
        return _RowTotals(row, groups, {}, {})
    figures = {key: values[key] for key in overall.METRICS}
    parts = {key: comparison.draws(groups[key[0]], key[1]) for key in overall.METRICS}
    drawn = {key: draws for key, draws in parts.items() if draws is not None}
    cells, resampled, training = {}, {}, {}
    for column in columns:
        value, draws = FORMULAS[column](figures), FORMULAS[column](drawn)
        training[column] = _training(FORMULAS[column], figures, groups, comparison)
        if draws is not None:
            resampled[column] = draws
        if value is not None:
            cells[column.key] = _cell(value, draws, training[column])
    return _RowTotals(_with_cells(row, cells), groups, resampled, training)


def _training(
    formula: Callable[[Mapping[ColumnKey, float]], float | None],
    figures: Mapping[ColumnKey, float],
    groups: Mapping[str, RunGroup],
    comparison: PairedComparison,
) -> Variance | None:
    """The variance that training gives an overall figure: each metric's by its weight; one task's two move together."""
    centre, by_task = formula(figures) or 0.0, dict[str, list[Variance]]()
    for task, key in figures:
        variance = comparison.training(groups[task], key)
        if variance is None:
            return None
        weight = (formula({**figures, (task, key): figures[task, key] + 1.0}) or 0.0) - centre
        by_task.setdefault(task, []).append(Variance(weight**2 * variance.value, variance.df))
    return Variance.total(
        Variance(sum(math.sqrt(part.value) for part in parts) ** 2, min(part.df for part in parts))
        for parts in by_task.values()
    )


def _cell(value: float, draws: Draws | None, training: Variance | None) -> Cell:
    """An overall figure's cell: over ten test sets the normal distribution serves."""
    if draws is None:
        return Cell(value)
    ends = intervals.percentiles(draws, math.inf)
    if training is None:
        return Cell(value, *ends)
    return Cell(value, *training_spread.widen(value, ends, training), training=math.sqrt(training.value))


def _compared(ours: _RowTotals, reference_totals: _RowTotals, comparison: PairedComparison) -> Row:
    """Add paired differences from the reference's overall figures, and the % of them that is retained.

    Other test units can't be paired: then the % retained has no interval, and there are no differences.
    """
    if ours is reference_totals or not (
        ours.draws and reference_totals.draws and _same_units(ours, reference_totals, comparison)
    ):
        return _with_cells(ours.row, _retained(ours.row, reference_totals.row))
    more = _retained(ours.row, reference_totals.row)
    for total, retained in RETAINED_COLUMN.items():
        if total in ours.draws and total in reference_totals.draws:
            own, other = ours.draws[total], reference_totals.draws[total]
            cell, value = ours.row.cells[total.key], reference_totals.row.cells[total.key].value
            variances = ours.training[total], reference_totals.training[total]
            more[total.key] = replace(
                cell,
                difference=differences.paired(
                    cell.value - value, own - other, math.inf, UNITS, _weighted(variances, (1.0, 1.0))
                ),
            )
            if retained.key in more and (other > 0).all():
                share = cell.value / value
                training = _weighted(variances, ((100 / value) ** 2, (100 * share / value) ** 2))
                more[retained.key] = _cell(100 * share, 100 * own / other, training)
    return _with_cells(ours.row, more)


def _weighted(variances: Sequence[Variance | None], weights: Sequence[float]) -> Variance | None:
    """The variance of a sum of independent figures, each with its squared weight; None where one is unknown."""
    known = [Variance(w * v.value, v.df) for v, w in zip(variances, weights, strict=True) if v is not None]
    return Variance.total(known) if len(known) == len(variances) else None


def _same_units(ours: _RowTotals, reference_totals: _RowTotals, comparison: PairedComparison) -> bool:
    return all(comparison.same_units(ours.groups[task], reference_totals.groups[task]) for task in overall.ANCHORS)


def _with_unpaired(row: Row, reference_row: Row) -> Row:
    """A row with unpaired differences from the reference's overall figures, and the % retained."""
    more = _retained(row, reference_row)
    for total in RETAINED_COLUMN:
        own, other = row.cells.get(total.key), reference_row.cells.get(total.key)
        if row is not reference_row and own is not None and other is not None:
            more[total.key] = replace(own, difference=differences.unpaired(own.value, other.value))
    return _with_cells(row, more)


def _retained(row: Row, reference_row: Row) -> dict[ColumnKey, Cell]:
    """The % retained of the reference's overall figures; only where the reference's is above zero."""
    cells = {}
    for total, retained in RETAINED_COLUMN.items():
        ours, theirs = row.cells.get(total.key), reference_row.cells.get(total.key)
        if ours is not None and theirs is not None and theirs.value > 0:
            cells[retained.key] = Cell(100 * ours.value / theirs.value)
    return cells
