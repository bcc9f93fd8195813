"""Builds the tables of a results folder: upstreams down, tasks across, an interval in each cell; gaps stay gaps.

Runs of different corpora or profiles can't be compared, so each corpus and profile gets a table of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from downstreams.registry import task_order
from superb_eval.errors import UserError, near_miss
from superb_eval.results import published, upstream_address
from superb_eval.results.folder import OFFICIAL, Protocol, Results, RunGroup, RunGroups, open_results
from superb_eval.results.published import PublishedSystem
from superb_eval.results.record import MetricRecord
from superb_eval.results.stats import chance, intervals, training_spread
from superb_eval.results.stats.differences import holm
from superb_eval.results.stats.paired_comparison import PairedComparison
from superb_eval.results.stats.resampling import NEW_SPEAKERS, THESE_SPEAKERS, Population
from superb_eval.results.table import captions, costs, footnotes, published_rows, ranks, totals
from superb_eval.results.table.result_table import Cell, Column, ColumnKey, ResultTable, Row
from superb_eval.runtime.progress import NoProgress, Progress

ROUNDING = 1e-9
"""Below it draws of a metric are equal."""


@dataclass(frozen=True)
class TableOptions:
    """What a table shows. `against` is the reference; `published` are names of published systems, or `all`.

    `population`: what intervals and comparisons are for, where speakers are known. `tasks`: those shown; empty: all.
    `sort`: a column's task, heading or both (`asr wer`), by which rows are ordered, the best first; empty: by size.
    `intervals`: whether cells have intervals, spreads and differences.
    """

    protocol: Protocol = "strict"
    against: str | None = None
    published: tuple[str, ...] = ()
    population: Population = NEW_SPEAKERS
    tasks: tuple[str, ...] = ()
    sort: str = ""
    intervals: bool = True


def collect(
    folder: Path, options: TableOptions | None = None, progress: Progress | None = None
) -> tuple[list[ResultTable], list[str]]:
    """Return a results folder's tables, and a sentence for each entry that is left out.

    `strict` figures have everything chosen on dev; `historical` ones follow the published procedure where that looks
    at the test set, and are the ones to compare with the literature. Where `options` name published systems, the
    folder may be missing: they are shown alone. The first row is the reference; the others follow from the largest to
    the smallest.

    Raises:
        UserError: there is no such folder, no run in it is finished or is of `tasks`, no row has the name `against`,
            no column is called `sort`, or a published reference was measured on reference data or by another protocol
            than the runs.
    """
    options = options or TableOptions()
    systems = published.choose(options.published)
    results = _opened(folder, bool(systems)).of_tasks(options.tasks)
    options = with_reference(options, results)
    _check_reference(results, options, systems)
    with (progress or NoProgress()).step("comparing", len(results.shown)) as update:
        comparison = PairedComparison(options.protocol, update, options.population)
        tables = [
            _table(key, groups, results, options, systems, comparison) for key, groups in results.run_groups.items()
        ]
    if systems and not any(_comparable(key, options.protocol) for key in results.run_groups):
        tables.append(_published_table(systems, options))
    _, problems = costs.read_or_report(folder)
    return tables, [*results.left_out, *comparison.problems, *problems]


def with_reference(options: TableOptions, results: Results) -> TableOptions:
    """Return options whose reference has the name of its row, however it was typed."""
    if options.against is None:
        return options
    measured = {upstream for groups in results.run_groups.values() for upstream, _ in groups}
    return replace(options, against=upstream_address.row_of(options.against, measured))


def _opened(folder: Path, may_be_empty: bool) -> Results:
    if may_be_empty and not folder.exists():
        return Results(folder)
    results = open_results(folder)
    if not results.runs and (results.tries or not results.left_out) and not may_be_empty:
        tries = f" but {len(results.tries)} with --limit, which tables leave out" if results.tries else ""
        raise UserError(
            f"{folder}: holds no finished run{tries}. `superb-eval run TASK -u UPSTREAM --out {folder}` makes one."
        )
    return results


def _comparable(key: tuple[str, str], protocol: Protocol) -> bool:
    """Whether a table's figures were measured on the data and by the protocol of published ones."""
    return key == (OFFICIAL, "superb") and protocol == "historical"


def _check_reference(results: Results, options: TableOptions, systems: Sequence[PublishedSystem]) -> None:
    """Refuse a reference that is missing, or one whose figures can't be ranked with those of the runs."""
    name = options.against
    measured = sorted({upstream for groups in results.run_groups.values() for upstream, _ in groups})
    if name is None or name in measured:
        return
    system = published.find(name)
    if system is None:
        hint, rows = near_miss(name, measured), ", ".join(measured)
        advice = "" if hint else " Run it on the same data to have one."
        raise UserError(f"--against {name}: the table has no row of that name.{hint} Its rows: {rows}.{advice}")
    others = [key for key in results.run_groups if not _comparable(key, options.protocol)]
    if others:
        raise UserError(captions.not_comparable(system, others, options.protocol, measured))
    if system not in systems:
        raise UserError(f"--against {name}: is a published row. Add --published {system.key}.")


def _table(
    key: tuple[str, str],
    groups: RunGroups,
    results: Results,
    options: TableOptions,
    systems: Sequence[PublishedSystem],
    comparison: PairedComparison,
) -> ResultTable:
    columns = _columns(groups, options.protocol)
    reference = options.against
    names = _names(groups, reference)
    rows = [_row(name, groups, columns, options, comparison) for name in names]
    rows = [_holm(row) for row in ranks.rank_rows(rows, columns, groups, comparison)]
    rows, more = totals.with_totals(rows, groups, comparison, reference, official=key == (OFFICIAL, "superb"))
    measured, _ = costs.read_or_report(results.root)
    rows, sizes = costs.with_costs(rows, groups, measured, reference)
    if _comparable(key, options.protocol) and systems:
        system = None if reference in names else published.find(reference or "")
        reference = system.name if system else reference
        rows, more = totals.with_published(
            published_rows.with_differences(rows, system), published_rows.rows_of(systems, system), reference
        )
    shown = (*sizes, *columns, *more)
    rows = _sorted(rows, shown, options.sort) if options.sort else rows
    label = " ".join((*key, options.protocol))
    table = ResultTable(captions.title(key, groups, options.protocol), shown, tuple(rows), (), reference, label)
    table = table if options.intervals else table.brief()
    return replace(table, notes=tuple(captions.measured_captions(table, groups, systems, intervals=options.intervals)))


def _sorted(rows: Sequence[Row], columns: Sequence[Column], name: str) -> list[Row]:
    """Rows by a column, the best first (where neither direction is better, the largest); gaps and published rows last.

    Raises:
        UserError: no column, or several, are called so.
    """
    wanted = set(name.lower().split())
    names = {column.key: f"{column.key[0]} {column.heading}".lower().strip() for column in columns}
    found = [c for c in columns if names[c.key] == " ".join(name.lower().split())]
    found = found or [c for c in columns if wanted <= {c.key[0], *names[c.key].split()}]
    if not found:
        raise UserError(f"--sort {name}: the table has no such column. Its columns: {', '.join(names.values())}.")
    column = found[0]  # the first metric of a task with several
    sign = 1 if column.higher_is_better is False else -1

    def place(row: Row) -> tuple[bool, bool, float]:
        cell = row.cells.get(column.key)
        return row.published, cell is None, 0.0 if cell is None else sign * cell.value

    return sorted(rows, key=place)


def _names(groups: RunGroups, reference: str | None) -> list[str]:
    """Upstreams in the order of rows: the reference, then from the largest to the smallest."""
    sizes = {name: group.record.upstream.parameters for (name, _), group in groups.items()}
    return sorted(sizes, key=lambda name: (name != reference, -sizes[name], name))


def _published_table(systems: Sequence[PublishedSystem], options: TableOptions) -> ResultTable:
    """The published systems by themselves: no run here has their data and protocol."""
    system = published.find(options.against or "")
    reference = system.name if system else None
    rows, more = totals.with_published([], published_rows.rows_of(systems, system), reference)
    filled = {key for row in rows for key in row.cells}
    of_tasks = (c for c in captions.published_columns() if not options.tasks or c.key[0] in options.tasks)
    totals_of_all = () if options.tasks else more
    columns = tuple(column for column in (costs.PARAMETERS, *of_tasks, *totals_of_all) if column.key in filled)
    rows = _sorted(rows, columns, options.sort) if options.sort else rows
    table = ResultTable(captions.PUBLISHED_TITLE, columns, tuple(rows), (), reference, "published")
    return replace(table, notes=tuple(captions.published_captions(systems, system)))


def _columns(groups: RunGroups, protocol: Protocol) -> tuple[Column, ...]:
    columns: dict[ColumnKey, Column] = {}
    for (_, task), group in groups.items():
        for m in group.runs[0].metrics(protocol):
            columns.setdefault((task, m.key), Column((task, m.key), m.heading, m.unit, m.higher_is_better))
    return tuple(sorted(columns.values(), key=lambda column: task_order(column.key[0])))


def _row(
    name: str, groups: RunGroups, columns: Sequence[Column], options: TableOptions, comparison: PairedComparison
) -> Row:
    cells = {}
    for column in columns:
        task, key = column.key
        group = groups.get((name, task))
        if group is not None and all(run.metric(key, options.protocol) for run in group.runs):
            reference = groups.get((options.against or "", task))
            cells[column.key] = _cell(
                group, key, options.protocol, comparison, footnotes.footnote_marks(name, task, groups), reference
            )
    cells = _with_chance(cells, name, groups, options.protocol)
    folders = {
        task: tuple(str(run.folder) for run in group.runs)
        for (upstream, task), group in groups.items()
        if upstream == name
    }
    return Row(name, cells, runs=folders)


def _cell(
    group: RunGroup, key: str, protocol: Protocol, comparison: PairedComparison, marks: str, reference: RunGroup | None
) -> Cell:
    recorded = [m for run in group.runs if (m := run.metric(key, protocol))]
    values = [m.value for m in recorded]
    training = comparison.training(group, key)
    population, ends = _ends(group, key, recorded, comparison)
    if ends and training:
        widened = training_spread.widen(mean(values), ends, training)
        ends = training_spread.possible(widened, recorded[0].higher_is_better)
    low, high = ends or (None, None)
    return Cell(
        value=mean(values),
        low=low,
        high=high,
        seeds=len(values),
        spread=stdev(values) if len(values) > 1 else None,
        population=population,
        training=math.sqrt(training.value) if training else None,
        marks=marks,
        difference=comparison.difference(group, reference, key) if reference and reference is not group else None,
    )


def _with_chance(
    cells: dict[ColumnKey, Cell], name: str, groups: RunGroups, protocol: Protocol
) -> dict[ColumnKey, Cell]:
    """Cells, with those of tasks marked whose first metric is not above chance."""
    tasks = set()
    for task in {task for task, _ in cells}:
        run = groups[name, task].runs[0]
        first = run.metrics(protocol)[0]
        cell = cells.get((task, first.key))
        if cell is not None:
            ends = (cell.value if cell.low is None else cell.low, cell.value if cell.high is None else cell.high)
            tasks |= {task} if chance.reaches(first, ends, groups[name, task].record.chance) else set()
    return {key: replace(cell, at_chance=key[0] in tasks) for key, cell in cells.items()}


def _ends(
    group: RunGroup, key: str, recorded: Sequence[MetricRecord], comparison: PairedComparison
) -> tuple[str, tuple[float, float] | None]:
    """What an interval over test units is for, and its ends: of one run as recorded, of several of their mean."""
    first = recorded[0]
    if len(recorded) == 1:
        if comparison.population == THESE_SPEAKERS and first.low_these is not None and first.high_these is not None:
            return THESE_SPEAKERS, (first.low_these, first.high_these)
        return first.population, (first.low, first.high)
    draws, population = comparison.draws(group, key), comparison.population_of(group, key)
    if draws is None or population is None:
        return first.population, None
    if np.ptp(draws) < ROUNDING:  # all answers right: resamples show no variance, and Wilson's interval of a run does
        same = (first.low_these, first.high_these) if population == THESE_SPEAKERS else (None, None)
        return population, (first.low if same[0] is None else same[0], first.high if same[1] is None else same[1])
    return population, intervals.percentiles(draws, comparison.degrees_of_freedom(group, key))


def _holm(row: Row) -> Row:
    """A row whose differences are tested as a family: any false one with a chance of 5 % at most."""
    found = holm({key: cell.difference for key, cell in row.cells.items() if cell.difference})
    return replace(row, cells={k: replace(cell, difference=found.get(k)) for k, cell in row.cells.items()})
