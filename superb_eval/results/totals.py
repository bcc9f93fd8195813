"""The columns that sum an upstream up: superb_s, the mean of all metrics, and what is kept of the reference's.

Undefined where a task is missing; never averaged around.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from superb_eval.results import intervals, overall
from superb_eval.results.board import Column, Figure, Line, Place
from superb_eval.results.evidence import Evidence
from superb_eval.results.folder import Cell
from superb_eval.results.intervals import Draws

SUPERB_S = Column(("", "superb_s"), "superb_s", "points", higher_is_better=True, decimals=1)
MEAN = Column(("", "mean"), "mean", "%", higher_is_better=True)
KEPT_S = Column(("", "kept_superb_s"), "superb_s kept", "%", higher_is_better=True, decimals=1)
KEPT = Column(("", "kept_mean"), "mean kept", "%", higher_is_better=True, decimals=1)
KEEPS = {SUPERB_S: KEPT_S, MEAN: KEPT}

COLUMNS = (SUPERB_S, KEPT_S, MEAN, KEPT)

Formula = Callable[[Mapping[Place, Draws]], "Draws | None"]


def with_totals(
    lines: Sequence[Line],
    cells: Mapping[tuple[str, str], Cell],
    evidence: Evidence,
    reference: str | None,
    *,
    official: bool,
) -> tuple[list[Line], tuple[Column, ...]]:
    """Return lines with their overall figures, and the columns for them: those that some line has.

    superb_s is anchored at figures of the official corpora, so that it says nothing of others.
    """
    done = []
    for line in lines:
        own = {name: cell for (upstream, name), cell in cells.items() if upstream == line.name}
        draws = _draws(line, own, evidence)
        more = {MEAN.place: _total(line, draws, overall.mean_of_metrics, overall.mean_of_metrics)}
        if official:
            more[SUPERB_S.place] = _total(line, draws, overall.superb_s, overall.superb_s)
        done.append(replace(line, figures={**line.figures, **{p: f for p, f in more.items() if f is not None}}))
    return _finished(done, reference)


def of_published(lines: Sequence[Line], against: str | None) -> tuple[list[Line], tuple[Column, ...]]:
    """Return published lines with their overall figures, and the columns for them."""
    from superb_eval.results import published

    reference = published.find(against or "")
    done = []
    for line in lines:
        values = {place: figure.value for place, figure in line.figures.items()}
        totals = {SUPERB_S.place: overall.superb_s(values), MEAN.place: overall.mean_of_metrics(values)}
        more = {place: Figure(value) for place, value in totals.items() if value is not None}
        done.append(replace(line, figures={**line.figures, **more}))
    return _finished(done, reference.name if reference else None)


def _finished(lines: Sequence[Line], reference: str | None) -> tuple[list[Line], tuple[Column, ...]]:
    kept = _with_retention(lines, reference)
    there = {place for line in kept for place in line.figures}
    return kept, tuple(column for column in COLUMNS if column.place in there)


def _draws(line: Line, cells: Mapping[str, Cell], evidence: Evidence) -> dict[Place, Draws] | None:
    """Every metric that counts, on resamples of its own test set; None where one is missing."""
    if overall.missing({place: figure.value for place, figure in line.figures.items()}):
        return None
    found = {place: evidence.draws(cells[place[0]], place[1]) for place in overall.PLACES}
    return {place: draws for place, draws in found.items() if draws is not None}


def _total(
    line: Line,
    draws: Mapping[Place, Draws] | None,
    of_figures: Callable[[Mapping[Place, float]], float | None],
    of_draws: Formula,
) -> Figure | None:
    value = of_figures({place: figure.value for place, figure in line.figures.items()})
    if value is None or draws is None:
        return None
    resampled = of_draws(draws)
    if resampled is None:  # predictions are missing, which is listed; the figure stands without an interval
        return Figure(value)
    low, high = intervals.percentiles(resampled, intervals.RESAMPLES)
    return Figure(value, low, high)


def _with_retention(lines: Iterable[Line], reference: str | None) -> list[Line]:
    """Add the share of the reference's overall figures that each line keeps; of a figure above zero only."""
    listed = list(lines)
    whole = next((line for line in listed if line.name == reference), None)
    return listed if whole is None else [_retaining(line, whole) for line in listed]


def _retaining(line: Line, whole: Line) -> Line:
    more = {}
    for total, kept in KEEPS.items():
        ours, theirs = line.figures.get(total.place), whole.figures.get(total.place)
        if ours is not None and theirs is not None and theirs.value > 0:
            more[kept.place] = Figure(100 * ours.value / theirs.value)
    return replace(line, figures={**line.figures, **more})
