"""The columns that sum an upstream up: superb_s, the mean of all metrics, and what is kept of the reference's.

Undefined where a task is missing; never averaged around.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from superb_eval.results.folder import RunGroup
from superb_eval.results.stats import intervals, overall
from superb_eval.results.stats.intervals import Difference, Draws
from superb_eval.results.stats.paired_comparison import Evidence
from superb_eval.results.table import ranks
from superb_eval.results.table.result_table import Cell, Column, Place, Row

SUPERB_S = Column(("", "superb_s"), "superb_s", "points", higher_is_better=True, decimals=1)
MEAN = Column(("", "mean"), "mean", "%", higher_is_better=True)
KEPT_S = Column(("", "kept_superb_s"), "superb_s kept", "%", higher_is_better=True, decimals=1)
KEPT = Column(("", "kept_mean"), "mean kept", "%", higher_is_better=True, decimals=1)
KEEPS = {SUPERB_S: KEPT_S, MEAN: KEPT}

COLUMNS = (SUPERB_S, KEPT_S, MEAN, KEPT)
FORMULAS = {SUPERB_S: overall.superb_s, MEAN: overall.mean_of_metrics}

UNITS = "test units of all tasks"


@dataclass(frozen=True)
class _Summed:
    """A line with its overall figures, and what they come to on resamples, as far as its predictions are there."""

    line: Row
    cells: Mapping[str, RunGroup]
    draws: Mapping[Column, Draws]


def with_totals(
    lines: Sequence[Row],
    cells: Mapping[tuple[str, str], RunGroup],
    evidence: Evidence,
    reference: str | None,
    *,
    official: bool,
) -> tuple[list[Row], tuple[Column, ...]]:
    """Return lines with their overall figures, and the columns for them: those that some line has.

    superb_s is anchored at figures of the official corpora, so that it says nothing of others.
    """
    wanted = (SUPERB_S, MEAN) if official else (MEAN,)
    done = [_summed(line, _of(line.name, cells), wanted, evidence) for line in lines]
    whole = next((total for total in done if total.line.name == reference), None)
    compared = [_compared(total, whole, evidence) if whole else total.line for total in done]
    return compared, _columns(compared)


def with_published(
    measured: Sequence[Row], rows: Sequence[Row], reference: str | None
) -> tuple[list[Row], tuple[Column, ...]]:
    """Return measured and published lines with overall figures, and the columns for them.

    `reference` names a published line: the others get plain differences from it. Measured lines have their totals.
    """
    done = list(measured)
    for line in rows:
        values = {place: figure.value for place, figure in line.figures.items()}
        totals = {column.place: formula(values) for column, formula in FORMULAS.items()}
        done.append(_with(line, {place: Cell(value) for place, value in totals.items() if value is not None}))
    whole = next((line for line in done if line.published and line.name == reference), None)
    compared = [_beside(line, whole) if whole else line for line in done]
    return compared, _columns(compared)


def _of(name: str, cells: Mapping[tuple[str, str], RunGroup]) -> dict[str, RunGroup]:
    return {task: cell for (upstream, task), cell in cells.items() if upstream == name}


def _with(line: Row, more: Mapping[Place, Cell]) -> Row:
    return replace(line, figures={**line.figures, **more})


def _columns(lines: Sequence[Row]) -> tuple[Column, ...]:
    there = {place for line in lines for place in line.figures}
    return tuple(column for column in COLUMNS if column.place in there)


def _summed(line: Row, cells: Mapping[str, RunGroup], wanted: Sequence[Column], evidence: Evidence) -> _Summed:
    """Where a task is missing, nothing is added; where predictions are, which is listed, no interval."""
    values = {place: figure.value for place, figure in line.figures.items()}
    if overall.missing(values):
        return _Summed(line, cells, {})
    parts = {place: evidence.draws(cells[place[0]], place[1]) for place in overall.PLACES}
    known = {place: draws for place, draws in parts.items() if draws is not None}
    figures, resampled = {}, {}
    for column in wanted:
        value, draws = FORMULAS[column](values), FORMULAS[column](known)
        if draws is not None:
            resampled[column] = draws
        if value is not None:
            ends = (None, None) if draws is None else intervals.percentiles(draws, intervals.RESAMPLES)
            figures[column.place] = Cell(value, *ends)
    return _Summed(_with(line, figures), cells, resampled)


def _compared(ours: _Summed, whole: _Summed, evidence: Evidence) -> Row:
    """Add paired differences from the reference's overall figures, and the shares of them that are kept.

    Other test units can't be paired: then shares stand without intervals, and there are no differences.
    """
    if ours is whole or not (ours.draws and whole.draws and _same_units(ours, whole, evidence)):
        return _with(ours.line, _shares(ours.line, whole.line))
    more = _shares(ours.line, whole.line)
    for total, kept in KEEPS.items():
        if total in ours.draws and total in whole.draws:
            own, other = ours.draws[total], whole.draws[total]
            figure = ours.line.figures[total.place]
            low, high = intervals.percentiles(own - other, intervals.RESAMPLES)
            value = figure.value - whole.line.figures[total.place].value
            more[total.place] = replace(figure, difference=Difference(value, low, high, UNITS))
            if kept.place in more and (other > 0).all():
                ends = intervals.percentiles(100 * own / other, intervals.RESAMPLES)
                more[kept.place] = Cell(more[kept.place].value, *ends)
    return _with(ours.line, more)


def _same_units(ours: _Summed, whole: _Summed, evidence: Evidence) -> bool:
    return all(evidence.same_units(ours.cells[task], whole.cells[task]) for task in overall.ANCHORS)


def _beside(line: Row, whole: Row) -> Row:
    """A line with plain differences from the reference's overall figures, and the shares that are kept."""
    more = _shares(line, whole)
    for total in KEEPS:
        own, other = line.figures.get(total.place), whole.figures.get(total.place)
        if line is not whole and own is not None and other is not None:
            more[total.place] = replace(own, difference=ranks.plain_difference(own.value, other.value))
    return _with(line, more)


def _shares(line: Row, whole: Row) -> dict[Place, Cell]:
    """The share of the reference's overall figures that a line keeps; of a figure above zero only."""
    found = {}
    for total, kept in KEEPS.items():
        ours, theirs = line.figures.get(total.place), whole.figures.get(total.place)
        if ours is not None and theirs is not None and theirs.value > 0:
            found[kept.place] = Cell(100 * ours.value / theirs.value)
    return found
