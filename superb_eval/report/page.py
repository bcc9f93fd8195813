"""Puts a report together: everything of a results folder that a page shows, and the page itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from superb_eval.errors import UserError
from superb_eval.report import render
from superb_eval.report.charts import comparison, pareto, svg, training
from superb_eval.report.charts import layers as layers_module
from superb_eval.report.charts.comparison import Palette
from superb_eval.report.render import Command
from superb_eval.report.sections import errors, result_grid
from superb_eval.report.sections import headline as headline_module
from superb_eval.report.sections.errors import TaskErrors
from superb_eval.report.sections.headline import Standing
from superb_eval.report.sections.result_grid import GridRow
from superb_eval.report.sections.worst_utterances import Sounds
from superb_eval.results import layer_record
from superb_eval.results.folder import Results, RunGroup, open_results
from superb_eval.results.layer_record import LayersRecord
from superb_eval.results.table import build
from superb_eval.results.table.build import Wanted
from superb_eval.results.table.result_table import ResultTable, order_of
from superb_eval.runtime import atomic_files
from superb_eval.runtime.progress import NoProgress, Progress

Cells = Mapping[tuple[str, str], RunGroup]


@dataclass(frozen=True)
class Asked:
    """What a report is asked to show. `audio_mb` bounds the clips embedded, in 10^6 bytes; 0: none.

    `against` None: the measured upstream with the most parameters. `data`: where the corpora are now; None: where each
    run found its own.
    """

    wanted: Wanted = Wanted()
    data: Path | None = None
    audio_mb: float = 4.0


@dataclass(frozen=True)
class Key:
    """An entry of the legend: the colour and the mark of an upstream."""

    name: str
    swatch: Markup


@dataclass(frozen=True)
class TaskTraining:
    """The charts of one task's trainings."""

    task: str
    charts: tuple[svg.Figure, ...]


@dataclass(frozen=True)
class TableView:
    """One board with all that is drawn of it."""

    key: str
    board: ResultTable
    rows: tuple[GridRow, ...]
    standings: tuple[Standing, ...]
    headline: tuple[str, ...]
    legend: tuple[Key, ...]
    forests: tuple[svg.Figure, ...]
    parallel: svg.Figure | None
    pareto: tuple[svg.Figure, ...]
    maps: tuple[svg.Figure, ...]
    probes: tuple[svg.Figure, ...]
    alike: tuple[svg.Figure, ...]
    training: tuple[TaskTraining, ...]
    errors: tuple[TaskErrors, ...]
    commands: tuple[Command, ...]


def write(folder: Path, out: Path, asked: Asked | None = None, progress: Progress | None = None) -> Path:
    """Write the report of a results folder into one HTML file that needs nothing else; return its path.

    Raises:
        UserError: see `table.collect`; or the file can't be written.
    """
    asked = asked or Asked()
    atomic_files.write_text(out, html(folder, asked, progress or NoProgress()))
    return out


def html(folder: Path, asked: Asked, progress: Progress) -> str:
    """Return the report of a results folder as HTML; see `write`."""
    results = open_results(folder)
    wanted = _with_reference(asked.wanted, results)
    boards, left_out = build.collect(folder, wanted, progress)
    sounds = Sounds(asked.audio_mb * 1e6, asked.data)
    layers, problems = _layers(folder)
    views = []
    with progress.step("drawing", len(boards)) as update:
        # Published rows may have a board of their own, behind those of runs.
        for k, (board, cells) in enumerate(zip(boards, [*results.boards.values(), {}], strict=False)):
            views.append(_view(f"b{k}", board, cells, wanted, layers if k == 0 else [], sounds, folder))
            update(k + 1)
    return render.render(
        folder=folder.name or str(folder),
        views=views,
        wanted=wanted,
        left_out=[*left_out, *problems],
        sounds=sounds,
        synthetic=any(run.record.corpus.synthetic for run in results.runs),
        records=[run.record for run in results.runs],
    )


def _with_reference(wanted: Wanted, results: Results) -> Wanted:
    """The reference that was named, or the largest of the upstreams that were run on the most tasks."""
    if wanted.against is not None or not results.boards:
        return wanted
    board = max(results.boards.values(), key=len)
    sizes: dict[str, tuple[int, int]] = {}
    for (name, _), cell in board.items():
        count, _ = sizes.get(name, (0, 0))
        sizes[name] = (count + 1, cell.record.upstream.parameters)
    return Wanted(wanted.protocol, max(sorted(sizes), key=lambda name: sizes[name]), wanted.published)


def _layers(folder: Path) -> tuple[list[LayersRecord], list[str]]:
    found, problems = [], []
    for path in layer_record.find(folder):
        try:
            found.append(layer_record.read(path))
        except UserError as error:
            problems.append(str(error))
    return found, problems


def _view(
    key: str,
    board: ResultTable,
    cells: Cells,
    wanted: Wanted,
    layers: Sequence[LayersRecord],
    sounds: Sounds,
    folder: Path,
) -> TableView:
    palette = {line.name: place for place, line in enumerate(board.lines)}
    standings = headline_module.standings(board, cells)
    by_task = {task: _of_task(cells, task) for task in sorted({task for _, task in cells}, key=order_of)}
    trained = [
        TaskTraining(task, tuple(training.figures(f"{key}-{task}", task, of_task, palette)))
        for task, of_task in by_task.items()
    ]
    return TableView(
        key=key,
        board=board,
        rows=tuple(result_grid.rows(key, board, cells)),
        standings=tuple(standings),
        headline=tuple(headline_module.headline(board, standings)),
        legend=tuple(_legend(palette, board)),
        forests=tuple(comparison.forests(key, board)),
        parallel=comparison.parallel(f"{key}-parallel", board, palette),
        pareto=tuple(pareto.figures(key, board, folder, palette)),
        maps=tuple(_maps(key, board, cells)),
        probes=tuple(
            figure for k, found in enumerate(layers) for figure in layers_module.probes(f"{key}-l{k}", found, cells)
        ),
        alike=tuple(
            figure for k, found in enumerate(layers) for figure in layers_module.alikeness(f"{key}-l{k}", found)
        ),
        training=tuple(t for t in trained if t.charts),
        errors=tuple(errors.of_tasks(key, by_task, wanted.protocol, palette, sounds)),
        commands=tuple(_commands(by_task)),
    )


def _of_task(cells: Cells, task: str) -> dict[str, RunGroup]:
    return {name: cell for (name, t), cell in cells.items() if t == task}


def _legend(palette: Palette, board: ResultTable) -> Iterator[Key]:
    for line in board.lines:
        place = palette[line.name]
        kind = f"course {svg.series(place)}{' thick' if line.name == board.reference else ''}"
        parts = [svg.line(2, 8, 26, 8, kind), svg.mark(14.0, 8.0, place, hollow=line.published)]
        swatch = svg.tag("svg", *parts, viewBox="0 0 28 16", width=28, height=16, aria_hidden="true")
        yield Key(line.name, swatch)


def _maps(key: str, board: ResultTable, cells: Cells) -> Iterator[svg.Figure]:
    for k, line in enumerate(board.lines):
        of_line = {task: cell for (name, task), cell in cells.items() if name == line.name}
        yield from layers_module.maps(f"{key}-weights-{k}", line.name, of_line)


def _commands(by_task: Mapping[str, Mapping[str, RunGroup]]) -> Iterator[Command]:
    for task, of_task in by_task.items():
        for name, cell in of_task.items():
            for run in cell.runs:
                r = run.record
                yield Command(name, task, r.seed, r.command, tuple(r.departures), tuple(r.skipped))
