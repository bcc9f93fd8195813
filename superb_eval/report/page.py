"""Builds the HTML report of a results folder: collects all that the page shows, and writes the page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from downstreams.registry import task_order
from superb_eval.errors import UserError
from superb_eval.report import render
from superb_eval.report.charts import cost, differences, training
from superb_eval.report.charts import layers as layers_module
from superb_eval.report.charts.figure import Figure
from superb_eval.report.charts.layers import WeightMaps
from superb_eval.report.render import Command
from superb_eval.report.sections import errors, result_grid
from superb_eval.report.sections import headline as headline_module
from superb_eval.report.sections.errors import TaskErrors
from superb_eval.report.sections.headline import UpstreamSummary
from superb_eval.report.sections.result_grid import Grid
from superb_eval.report.sections.worst_utterances import AudioClips
from superb_eval.results import layer_record
from superb_eval.results.folder import Results, RunGroup, RunGroups, open_results
from superb_eval.results.layer_record import LayersRecord
from superb_eval.results.table import build, costs
from superb_eval.results.table.build import TableOptions
from superb_eval.results.table.result_table import ResultTable
from superb_eval.runtime import atomic_files, own_file
from superb_eval.runtime.progress import NoProgress, Progress

MARK = re.compile(rb": superb-eval report</title>")
"""In the head of every report."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows. `audio_mb` bounds the clips embedded, in 10^6 bytes; 0: none.

    `table.against` None: the measured upstream with the most parameters. `data`: where the corpora are now; None: where
    they were when each run was made. `title`: the page's heading; empty: the name of the results folder.
    """

    table: TableOptions = TableOptions()
    data: Path | None = None
    audio_mb: float = 4.0
    title: str = ""


@dataclass(frozen=True)
class TaskTraining:
    """The charts of one task's trainings."""

    task: str
    charts: tuple[Figure, ...]


@dataclass(frozen=True)
class TableView:
    """One result table with all charts of it."""

    key: str
    table: ResultTable
    grid: Grid
    summaries: tuple[UpstreamSummary, ...]
    headline: tuple[str, ...]
    relative: Figure | None
    forests: tuple[Figure, ...]
    cost: tuple[Figure, ...]
    weights: tuple[WeightMaps, ...]
    probes: tuple[Figure, ...]
    similarities: tuple[Figure, ...]
    training: tuple[TaskTraining, ...]
    errors: tuple[TaskErrors, ...]
    commands: tuple[Command, ...]


def write(folder: Path, out: Path, options: ReportOptions | None = None, progress: Progress | None = None) -> Path:
    """Write the report of a results folder into one HTML file that needs nothing else; return its path.

    Raises:
        UserError: see `results.table.build.collect`; or the file can't be written, or holds something else.
    """
    options = options or ReportOptions()
    target = own_file.check(out, MARK, "report")
    atomic_files.write_text(target, html(folder, options, progress or NoProgress()))
    return out


def html(folder: Path, options: ReportOptions, progress: Progress) -> str:
    """Return the report of a results folder as HTML; see `write`."""
    results = open_results(folder)
    table_options = _with_reference(options.table, results)
    tables, left_out = build.collect(folder, table_options, progress)
    clips = AudioClips(options.audio_mb * 1e6, options.data)
    layers, problems = _layers(folder)
    views = []
    with progress.step("drawing", len(tables)) as update:
        # Published rows may have a table of their own, after those of runs.
        for k, (table, groups) in enumerate(zip(tables, [*results.run_groups.values(), {}], strict=False)):
            views.append(_view(f"b{k}", table, groups, table_options, layers if k == 0 else [], clips, folder))
            update(k + 1)
    return render.render(
        title=options.title or folder.name or str(folder),
        views=views,
        protocol=table_options.protocol,
        left_out=[*left_out, *problems],
        clips=clips,
        synthetic=any(run.record.corpus.synthetic for run in results.runs),
        records=[run.record for run in results.runs],
    )


def _with_reference(table_options: TableOptions, results: Results) -> TableOptions:
    """Options with a reference: the one that was named, or the largest of the upstreams run on the most tasks."""
    if table_options.against is not None or not results.run_groups:
        return build.with_reference(table_options, results)
    largest = max(results.run_groups.values(), key=len)
    sizes: dict[str, tuple[int, int]] = {}
    for (name, _), group in largest.items():
        count, _ = sizes.get(name, (0, 0))
        sizes[name] = (count + 1, group.record.upstream.parameters)
    return replace(table_options, against=max(sorted(sizes), key=lambda name: sizes[name]))


def _layers(folder: Path) -> tuple[list[LayersRecord], list[str]]:
    readable, problems = [], []
    for path in layer_record.find(folder):
        try:
            readable.append(layer_record.read(path))
        except UserError as error:
            problems.append(str(error))
    return readable, problems


def _view(
    key: str,
    table: ResultTable,
    groups: RunGroups,
    table_options: TableOptions,
    layers: Sequence[LayersRecord],
    clips: AudioClips,
    folder: Path,
) -> TableView:
    table = costs.with_evaluation(table, groups)
    names = [row.name for row in table.rows]
    summaries = headline_module.summaries(table, groups)
    by_task = {
        task: {name: groups[name, task] for name in names if (name, task) in groups}
        for task in sorted({task for _, task in groups}, key=task_order)
    }
    trained = [
        TaskTraining(task, tuple(training.figures(f"{key}-{task}", task, of_task, names)))
        for task, of_task in by_task.items()
    ]
    return TableView(
        key=key,
        table=table,
        grid=result_grid.grid(key, table, groups),
        summaries=tuple(summaries),
        headline=tuple(headline_module.headline(table, summaries)),
        relative=differences.relative(f"{key}-relative", table),
        forests=tuple(differences.forests(key, table)),
        cost=tuple(cost.figures(key, table, costs.read_or_report(folder)[0])),
        weights=tuple(layers_module.weight_maps(key, names, groups)),
        probes=tuple(
            chart
            for k, record in enumerate(layers)
            for chart in (
                *layers_module.probe_charts(f"{key}-l{k}", record, groups),
                *layers_module.unit_charts(f"{key}-l{k}", record),
                *layers_module.abx_charts(f"{key}-l{k}", record),
            )
        ),
        similarities=tuple(
            chart for k, record in enumerate(layers) for chart in layers_module.similarity_charts(f"{key}-l{k}", record)
        ),
        training=tuple(t for t in trained if t.charts),
        errors=tuple(errors.of_tasks(key, by_task, table_options.protocol, names, clips)),
        commands=tuple(_commands(by_task)),
    )


def _commands(by_task: Mapping[str, Mapping[str, RunGroup]]) -> Iterator[Command]:
    for task, of_task in by_task.items():
        for name, group in of_task.items():
            for run in group.runs:
                r = run.record
                departures = (*r.departures, *r.corpus.leaks)
                yield Command(name, task, r.seed, r.command, departures, tuple(r.skipped))
