"""The texts around a table: its title, and captions with all that has to be known to read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from downstreams import registry
from superb_eval.results import origin as origins
from superb_eval.results import published
from superb_eval.results.folder import OFFICIAL, Protocol, RunGroups
from superb_eval.results.published import PublishedSystem
from superb_eval.results.stats import overall
from superb_eval.results.table import footnotes, totals
from superb_eval.results.table.result_table import AT_CHANCE, Cell, Column, ResultTable

PUBLISHED_TITLE = "Published figures (official corpora, historical protocol): not measured here, and not comparable"


def title(key: tuple[str, str], groups: RunGroups, protocol: Protocol) -> str:
    """Return a table's heading; what is not SUPERB is never called so."""
    corpus, profile = key
    official = key == (OFFICIAL, "superb")
    synthetic = any(group.record.corpus.synthetic for group in groups.values())
    kind = "official SUPERB protocol" if official else "not SUPERB"
    speech = "synthetic speech, " if synthetic else ""
    return f"{corpus} ({speech}profile {profile}: {kind}; {protocol} figures)"


def measured_captions(
    table: ResultTable, groups: RunGroups, systems: Sequence[PublishedSystem], *, intervals: bool
) -> Iterator[str]:
    """Yield what has to be known to read a table of measured figures, a sentence or two each."""
    if intervals:
        yield from _about_intervals(table)
    else:
        yield "Intervals and differences are left out (--no-intervals)."
    chance = {task: group.record.chance for (_, task), group in groups.items() if group.record.chance is not None}
    if chance:
        ordered = sorted(chance, key=registry.task_order)
        yield "Chance: " + ", ".join(f"{task.upper()} {chance[task]:.2f}" for task in ordered) + "."
    yield from _about_ranks(table)
    yield from _about_seeds(table)
    yield from _about_marks(table, groups)
    yield from _about_totals(table)
    people = origins.contributors(run.folder for group in groups.values() for run in group.runs)
    if people:
        yield f"Runs by contributor: {people}."
    if any(row.published for row in table.rows):
        yield "† published by others, without intervals; not ranked with measured figures."
        yield from _sources(systems)


def published_captions(systems: Sequence[PublishedSystem], reference: PublishedSystem | None) -> Iterator[str]:
    """Yield what has to be known to read a table of published figures."""
    yield "† published by others; published figures have no intervals."
    if reference:
        yield f"Δ: difference from {reference.name}."
        if any(system.folds and system is not reference for system in systems) and reference.folds:
            yield "ER: Student's 95 % interval over the five published folds; ≠ distinguishable, ≈ not."
        yield "retained: in % of the reference's figure."
    yield "superb_s: 0 is FBANK as the leaderboard re-ran it, 1000 the best of 2021; mean: of the eleven metrics."
    yield from _sources(systems)


def not_comparable(
    system: PublishedSystem, tables: Sequence[tuple[str, str]], protocol: Protocol, upstreams: list[str]
) -> str:
    """Return why measured figures can't be ranked against a published system."""
    measured = "; ".join(f"{corpus}, profile {profile}" for corpus, profile in tables)
    if all(key == (OFFICIAL, "superb") for key in tables) and protocol == "strict":
        return (
            f"--against {system.key}: published figures follow the historical procedure, which looks at the test set; "
            "these are strict. Add --historical to compare like with like."
        )
    return (
        f"--against {system.key}: it was measured on SUPERB's official corpora by the official protocol, the runs here "
        f"on {measured}: figures of different data or protocols can't be ranked together. "
        f"Give --against one of: {', '.join(upstreams)}. Without --against, --published {system.key} shows its figures "
        "in a table of their own."
    )


def published_columns() -> tuple[Column, ...]:
    """Return the columns of published figures, as the tasks define them."""
    columns = []
    for task, key in published.METRICS.values():
        metric = next((m for m in registry.get(task).metrics if m.key == key), None)
        # ASR's WER with a language model is no metric of every run.
        heading, unit, higher_is_better = (
            (metric.heading, metric.unit, metric.higher_is_better) if metric else WER_WITH_LM
        )
        columns.append(Column((task, key), heading, unit, higher_is_better))
    return tuple(columns)


WER_WITH_LM = ("WER with LM", "%", False)


def _about_ranks(table: ResultTable) -> Iterator[str]:
    ranks = {cell.rank for row in table.rows for cell in row.cells.values()}
    if "best" in ranks:
        yield "Bold: best of its column."
    if "tied" in ranks:
        yield "Bold with =: best of its column, or not distinguishable from the best."
    if any(cell.at_chance for row in table.rows for cell in row.cells.values()):
        yield f"{AT_CHANCE} not above chance: the interval includes what a constant or random answer scores; unranked."
    differences = [cell.difference for row in table.rows for cell in row.cells.values() if cell.difference]
    if differences:
        yield f"Δ: difference from {table.reference}; retained: in % of its figure."
    if any(difference.tested for difference in differences):
        yield (
            "Brackets after Δ: paired 95 % interval over the same test units (folds where a task is cross-validated; "
            "of overall figures, the units of all tasks); ≠ distinguishable from none, ≈ not. A row's metrics are "
            "tested together, so that any false ≠ among them has a chance of 5 % at most (Holm); so are the figures "
            "tied with a column's best. Overall figures are tested once."
        )


def _about_intervals(table: ResultTable) -> Iterator[str]:
    """What the intervals are for, and whether training is in them."""
    tasks_by_population: dict[str, list[str]] = {}
    for task, cell in _task_cells(table):
        population = cell.population.replace("units", registry.get_or_base(task).unit)
        tasks_by_population.setdefault(population, []).append(task)
    populations = [f"{_listed(tasks)}: {population}" for population, tasks in tasks_by_population.items() if population]
    yield f"Brackets: 95 % intervals ({'; '.join(populations)})." if populations else "Brackets: 95 % intervals."
    unknown = [task for task, cell in _task_cells(table) if cell.training is None]
    if not unknown:
        yield "They include the variance of training."
        return
    yield (
        f"Training variance unknown: {_listed(unknown)}: one seed, and their recipes ship none for this corpus. Those "
        "intervals are for the test set alone, and nothing there is called distinguishable (?). `suite --seeds 3` "
        "measures it."
    )


def _task_cells(table: ResultTable) -> Iterator[tuple[str, Cell]]:
    for row in table.rows:
        for (task, _), cell in row.cells.items():
            if task and not row.published:
                yield task, cell


def _listed(tasks: Iterable[str]) -> str:
    return ", ".join(task.upper() for task in sorted(set(tasks), key=registry.task_order))


def _about_seeds(table: ResultTable) -> Iterator[str]:
    counts = sorted({cell.seeds for _, cell in _task_cells(table)})
    if counts == [1]:
        yield "One seed behind each cell."
    elif counts:
        yield f"Seeds behind a cell: {' or '.join(map(str, counts))}; of several, the mean ± their standard deviation."


def _about_marks(table: ResultTable, groups: RunGroups) -> Iterator[str]:
    used = "".join(cell.marks for row in table.rows for cell in row.cells.values())
    for mark, meaning in footnotes.MEANINGS.items():
        if mark == "¶" and mark in used:
            changed = {(n, task): footnotes.overridden_keys(group.record) for (n, task), group in groups.items()}
            listed = [f"{n} {task.upper()}: {', '.join(keys)}" for (n, task), keys in changed.items() if keys]
            yield f"{meaning} ({'; '.join(listed)})."
        elif mark in used:
            yield meaning


def _about_totals(table: ResultTable) -> Iterator[str]:
    keys = {column.key for column in table.columns}
    if totals.SUPERB_S.key in keys:
        yield "superb_s: 0 is FBANK as the leaderboard re-ran it, 1000 the best of 2021."
    if totals.MEAN.key in keys:
        yield "mean: of the eleven metrics of ten tasks, errors as 100 - error."
    incomplete = [
        f"{row.name} ({', '.join(task.upper() for task in gaps)})"
        for row in table.rows
        if (gaps := overall.missing(_values(row.cells)))
    ]
    if incomplete and totals.MEAN.key in keys:
        yield f"Overall figures are undefined where a task is missing: {'; '.join(incomplete)}."


def _values(cells: Mapping[tuple[str, str], object]) -> dict[tuple[str, str], float]:
    return dict.fromkeys(cells, 0.0)


def _sources(systems: Sequence[PublishedSystem]) -> Iterator[str]:
    by_source: dict[str, list[str]] = {}
    for system in systems:
        unverified = "" if system.verified else " (not verified)"
        by_source.setdefault(system.source, []).append(system.name + unverified)
    for source, names in by_source.items():
        yield f"† {', '.join(names)}: {source}."
