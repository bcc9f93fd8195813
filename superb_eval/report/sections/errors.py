"""What went wrong, task by task: confusions, trade-offs and the worst utterances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from downstreams.base import Prediction, Scored
from superb_eval.errors import UserError
from superb_eval.report.charts import confusion, svg
from superb_eval.report.charts.comparison import Palette
from superb_eval.report.sections import worst_utterances
from superb_eval.report.sections.worst_utterances import Sounds, Worst
from superb_eval.results.folder import Protocol, Run, RunGroup
from superb_eval.results.stats import scoring


@dataclass(frozen=True)
class TaskErrors:
    """One task's errors. `charts` has one for each upstream, or one for all."""

    task: str
    title: str
    charts: tuple[svg.Figure, ...]
    worst: tuple[Worst, ...]


def of_tasks(
    key: str, by_task: Mapping[str, Mapping[str, RunGroup]], protocol: Protocol, palette: Palette, sounds: Sounds
) -> Iterator[TaskErrors]:
    """Yield the errors of each task whose predictions can be read; those of the first seed."""
    for task, cells in by_task.items():
        read = {name: found for name, cell in cells.items() if (found := _read(cell.runs[0], protocol))}
        if not read:
            continue
        kind = next(iter(read.values()))[0]
        rows = {name: found[1] for name, found in read.items()}
        worst = _worst(kind, rows, cells, sounds)
        charts = _charts(f"{key}-{task}", kind, rows, palette)
        yield TaskErrors(task, kind.title, tuple(charts), tuple(worst))


def _read(run: Run, protocol: Protocol) -> tuple[Scored, list[Prediction]] | None:
    """A run's task and predictions; None where they can't be scored, which the table has said by then."""
    try:
        rows = scoring.rows_of(run.folder, protocol == "historical")
        task = scoring.task_of(run.record, run.folder)
        task.score(rows)
    except (UserError, ValueError, KeyError, TypeError, IndexError):
        return None
    return task, rows


def _charts(key: str, task: Scored, rows: Mapping[str, list[Prediction]], palette: Palette) -> Iterator[svg.Figure]:
    if task.label_column:
        for k, (name, of_name) in enumerate(rows.items()):
            yield confusion.confusion(f"{key}-confusion-{k}", name, task.name, of_name)
    elif task.name == "asv":
        yield confusion.det(f"{key}-det", task.name, rows, palette)


def _worst(
    task: Scored, rows: Mapping[str, list[Prediction]], cells: Mapping[str, RunGroup], sounds: Sounds
) -> Iterator[Worst]:
    record = next(iter(cells.values())).record
    for found in worst_utterances.worst(task, rows):
        yield replace(found, sounds=sounds.of(record, found.id))
