"""Errors by task: confusions, detection error trade-offs and the worst utterances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from downstreams.base import BaseTask, Prediction
from superb_eval.errors import UserError
from superb_eval.report.charts import confusion, det
from superb_eval.report.charts.figure import Figure
from superb_eval.report.sections import worst_utterances
from superb_eval.report.sections.worst_utterances import AudioClips, WorstUtterance
from superb_eval.results.folder import Protocol, Run, RunGroup
from superb_eval.results.stats import scoring


@dataclass(frozen=True)
class TaskErrors:
    """One task's errors. `charts` has one for each upstream, or one for all."""

    task: str
    title: str
    charts: tuple[Figure, ...]
    worst: tuple[WorstUtterance, ...]

    @property
    def marked(self) -> bool:
        """Whether answers are transcripts with their errors marked."""
        return any(answer.marked is not None for utterance in self.worst for answer in utterance.answers)


def of_tasks(
    key: str, by_task: Mapping[str, Mapping[str, RunGroup]], protocol: Protocol, names: Sequence[str], clips: AudioClips
) -> Iterator[TaskErrors]:
    """Yield the errors of each task whose predictions can be read; those of the first seed. `names`: all upstreams."""
    for task, groups in by_task.items():
        scored = {name: read for name, group in groups.items() if (read := _read(group.runs[0], protocol))}
        if not scored:
            continue
        scorer = next(iter(scored.values()))[0]
        rows = {name: read[1] for name, read in scored.items()}
        worst = _worst(scorer, rows, groups, clips)
        charts = _charts(f"{key}-{task}", scorer, rows, names)
        yield TaskErrors(task, scorer.title, tuple(charts), tuple(worst))


def _read(run: Run, protocol: Protocol) -> tuple[BaseTask, list[Prediction]] | None:
    """A run's task and predictions; None where they can't be scored, which is reported with the table."""
    try:
        rows = scoring.run_predictions(run.folder, protocol == "historical")
        task = scoring.load_task(run.record, run.folder)
        scoring.scores(task, rows)
    except UserError:
        return None
    return task, rows


def _charts(key: str, task: BaseTask, rows: Mapping[str, list[Prediction]], names: Sequence[str]) -> Iterator[Figure]:
    if task.label_column:
        for k, (name, of_name) in enumerate(rows.items()):
            yield confusion.confusion(f"{key}-confusion-{k}", name, task.name, of_name)
    elif task.name == "asv":
        yield det.det(f"{key}-det", task.name, rows, names)


def _worst(
    task: BaseTask, rows: Mapping[str, list[Prediction]], groups: Mapping[str, RunGroup], clips: AudioClips
) -> Iterator[WorstUtterance]:
    record = next(iter(groups.values())).record
    for utterance in worst_utterances.worst(task, rows):
        uris, reason = clips.data_uris(record, utterance.id), clips.no_audio(record, utterance.id)
        yield replace(utterance, audio=uris, no_audio=reason)
