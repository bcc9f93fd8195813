"""Makes boards of a results folder: upstreams down, tasks across, each cell with its interval; gaps stay gaps.

Runs of different corpora or profiles are different questions, so each gets a board of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

from superb_eval.errors import UserError, near_miss
from superb_eval.results import published
from superb_eval.results.folder import OFFICIAL, Protocol, Results, RunGroup, open_results
from superb_eval.results.published import PublishedRow
from superb_eval.results.stats import intervals
from superb_eval.results.stats.paired_comparison import Evidence
from superb_eval.results.table import captions, costs, footnotes, ranks, totals
from superb_eval.results.table.result_table import Cell, Column, Place, ResultTable, Row, order_of
from superb_eval.runtime.progress import NoProgress, Progress

Cells = Mapping[tuple[str, str], RunGroup]
"""By (upstream, task)."""


@dataclass(frozen=True)
class Wanted:
    """What a table is asked to show. `published` are names of published rows, or `all`."""

    protocol: Protocol = "strict"
    against: str | None = None
    published: tuple[str, ...] = ()


def collect(
    folder: Path, wanted: Wanted | None = None, progress: Progress | None = None
) -> tuple[list[ResultTable], list[str]]:
    """Return a results folder's boards, and a sentence for each thing in it that is left out.

    `strict` figures have everything chosen on dev; `historical` ones follow the published procedure where that looks at
    the test set, and are the ones to compare with the literature. Where published rows are asked for, the folder may be
    missing: they are shown alone. The first row is the reference; the others follow from the largest to the smallest.

    Raises:
        UserError: there is no such folder, no run in it is finished, nothing is called as `against` is, or a published
            reference was measured on other data or by another protocol than the runs.
    """
    wanted = wanted or Wanted()
    rows = published.choose(wanted.published)
    results = _opened(folder, bool(rows))
    _check_reference(results, wanted, rows)
    with (progress or NoProgress()).step("comparing", len(results.shown)) as update:
        evidence = Evidence(wanted.protocol, update)
        boards = [_board(key, cells, results, wanted, rows, evidence) for key, cells in results.boards.items()]
    if rows and not any(_comparable(key, wanted.protocol) for key in results.boards):
        boards.append(_published_board(rows, wanted.against))
    return boards, [*results.left_out, *evidence.problems]


def _opened(folder: Path, may_be_empty: bool) -> Results:
    if may_be_empty and not folder.exists():
        return Results(folder)
    results = open_results(folder)
    if not results.runs and not results.left_out and not may_be_empty:
        raise UserError(
            f"{folder}: holds no finished run. `superb-eval run TASK -u UPSTREAM --out {folder}` makes one."
        )
    return results


def _comparable(key: tuple[str, str], protocol: Protocol) -> bool:
    """Whether a board's figures answer the question that published ones answer."""
    return key == (OFFICIAL, "superb") and protocol == "historical"


def _check_reference(results: Results, wanted: Wanted, rows: Sequence[PublishedRow]) -> None:
    """Refuse a reference that is not there, or one that would rank what can't be ranked."""
    name = wanted.against
    measured = sorted({upstream for cells in results.boards.values() for upstream, _ in cells})
    if name is None or name in measured:
        return
    row = published.find(name)
    if row is None or row not in rows:
        hint = " It is a published row: add --published." if row else near_miss(name, measured)
        raise UserError(f"--against {name}: no row of the table is called so.{hint} There: {', '.join(measured)}.")
    others = [key for key in results.boards if not _comparable(key, wanted.protocol)]
    if others:
        raise UserError(captions.not_comparable(row, others, wanted.protocol, measured))


def _board(
    key: tuple[str, str],
    cells: Cells,
    results: Results,
    wanted: Wanted,
    rows: Sequence[PublishedRow],
    evidence: Evidence,
) -> ResultTable:
    columns = _columns(cells, wanted.protocol)
    reference = wanted.against
    names = _names(cells, reference)
    lines = [_line(name, cells, columns, wanted, evidence) for name in names]
    lines = ranks.ranked(lines, columns, cells, evidence)
    lines, more = totals.with_totals(lines, cells, evidence, reference, official=key == (OFFICIAL, "superb"))
    lines, sizes = costs.with_costs(lines, cells, costs.read(results.root), reference)
    if _comparable(key, wanted.protocol) and rows:
        row = None if reference in names else published.find(reference or "")
        reference = row.name if row else reference
        lines, more = totals.with_published(_against_published(lines, row), _published_lines(rows, row), reference)
    board = ResultTable(
        captions.title(key, cells, wanted.protocol), (*sizes, *columns, *more), tuple(lines), (), reference
    )
    return replace(board, notes=tuple(captions.captions_of(board, cells, rows)))


def _names(cells: Cells, reference: str | None) -> list[str]:
    """Upstreams in the order of rows: the reference, then from the largest to the smallest."""
    sizes = {name: cell.record.upstream.parameters for (name, _), cell in cells.items()}
    return sorted(sizes, key=lambda name: (name != reference, -sizes[name], name))


def _published_board(rows: Sequence[PublishedRow], against: str | None) -> ResultTable:
    """The published rows by themselves: they answer another question than any run here."""
    row = published.find(against or "")
    reference = row.name if row else None
    lines, more = totals.with_published([], _published_lines(rows, row), reference)
    there = {place for line in lines for place in line.figures}
    columns = tuple(
        column for column in (costs.PARAMETERS, *captions.published_columns(), *more) if column.place in there
    )
    board = ResultTable(captions.PUBLISHED_TITLE, columns, tuple(lines), (), reference)
    return replace(board, notes=tuple(captions.captions_of_published(rows, row)))


def _columns(cells: Cells, protocol: Protocol) -> tuple[Column, ...]:
    found: dict[Place, Column] = {}
    for (_, task), cell in cells.items():
        for m in cell.runs[0].figures(protocol):
            found.setdefault((task, m.key), Column((task, m.key), m.heading, m.unit, m.higher_is_better))
    return tuple(sorted(found.values(), key=lambda column: order_of(column.place[0])))


def _line(name: str, cells: Cells, columns: Sequence[Column], wanted: Wanted, evidence: Evidence) -> Row:
    figures = {}
    for column in columns:
        task, key = column.place
        cell = cells.get((name, task))
        if cell is not None and all(run.figure(key, wanted.protocol) for run in cell.runs):
            other = cells.get((wanted.against or "", task))
            figures[column.place] = _figure(
                cell, key, wanted.protocol, evidence, footnotes.footnotes_of(name, task, cells), other
            )
    folders = {task: tuple(str(run.folder) for run in cells[n, task].runs) for n, task in cells if n == name}
    return Row(name, figures, runs=folders)


def _figure(
    cell: RunGroup, key: str, protocol: Protocol, evidence: Evidence, marked: str, other: RunGroup | None
) -> Cell:
    recorded = [m for run in cell.runs if (m := run.figure(key, protocol))]
    values = [m.value for m in recorded]
    low: float | None = recorded[0].low
    high: float | None = recorded[0].high
    if len(recorded) > 1:
        draws = evidence.draws(cell, key)
        low, high = (None, None) if draws is None else intervals.percentiles(draws, recorded[0].units)
    return Cell(
        value=mean(values),
        low=low,
        high=high,
        seeds=len(values),
        spread=stdev(values) if len(values) > 1 else None,
        marks=marked,
        difference=evidence.difference(cell, other, key) if other and other is not cell else None,
    )


def _published_lines(rows: Sequence[PublishedRow], reference: PublishedRow | None) -> list[Row]:
    return [
        Row(row.name, _published_figures(row, reference), published=True, source=row.source)
        for row in sorted(rows, key=lambda row: row is not reference)
    ]


def _published_figures(row: PublishedRow, reference: PublishedRow | None) -> dict[Place, Cell]:
    figures = {costs.PARAMETERS.place: Cell(row.parameters_m)}
    for place, value in row.figures.items():
        figures[place] = Cell(value, difference=_published_difference(row, reference, place))
    return figures


def _published_difference(
    row: PublishedRow, reference: PublishedRow | None, place: Place
) -> intervals.Difference | None:
    if reference is None or row is reference or place not in reference.figures:
        return None
    if place in row.folds and place in reference.folds:
        return intervals.paired_folds(row.folds[place], reference.folds[place])
    return ranks.plain_difference(row.figures[place], reference.figures[place])


def _against_published(lines: list[Row], reference: PublishedRow | None) -> list[Row]:
    """Measured lines with their plain differences from a published reference: it has no predictions to pair with."""
    if reference is None:
        return lines
    return [
        replace(
            line,
            figures={
                place: replace(f, difference=ranks.plain_difference(f.value, reference.figures[place]))
                if place in reference.figures
                else f
                for place, f in line.figures.items()
            },
        )
        for line in lines
    ]
