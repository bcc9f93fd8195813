"""Scores predictions: at the end of a run, and again for comparisons, reports and `verify`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from downstreams import registry
from downstreams.base import BaseTask, Prediction, Setup, nested
from downstreams.metrics.scores import Score
from superb_eval.errors import UserError
from superb_eval.results import record as records
from superb_eval.results import run_files
from superb_eval.results.record import MetricRecord, RunRecord
from superb_eval.results.stats import intervals, resampling
from superb_eval.results.stats.resampling import NEW_SPEAKERS, THESE_SPEAKERS

MOST_ROWS = 2_000_000
"""Of a predictions file: some 700 MB once read. QbE's official test set has 250 000."""

_WITHOUT_SPEAKERS = Prediction._fields[:-1]
"""The columns of records before schema 4."""


def scores(task: BaseTask, rows: Sequence[Prediction]) -> list[Score]:
    """Return the scores of predictions, with the speakers that their units are nested in.

    Raises:
        UserError: they are none of the task; whoever had the file may have edited it.
    """
    try:
        return nested(task, task.score(rows), rows)
    except UserError:
        raise
    except Exception as error:  # cells may hold anything, and each task reads its own
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(f"the predictions can't be scored as {task.name} ({reason}). Run it again.") from error


def metrics(task: BaseTask, rows: Sequence[Prediction], protocol: str) -> list[MetricRecord]:
    """Score predictions, each metric with its intervals; `protocol` is `strict` or `historical`.

    Raises:
        UserError: a metric is undefined on them.
    """
    return [_metric(score, protocol) for score in scores(task, rows)]


def _metric(score: Score, protocol: str) -> MetricRecord:
    metric, value = score.metric, score.value
    if not math.isfinite(value):
        raise UserError(
            f"{metric.heading} ({protocol}) is undefined on these {score.units} test units: all references are empty, "
            "or a score is not finite. Check the test split's labels, and the training's losses."
        )
    of = resampling.population(score)
    low, high = intervals.interval(score, of)
    if not math.isfinite(low + high):
        raise UserError(
            f"{metric.heading} ({protocol}) has no interval: {score.units} test units are too few, or all of one "
            "utterance. Add rows to the test split."
        )
    same = intervals.interval(score, THESE_SPEAKERS) if of == NEW_SPEAKERS else (None, None)
    return MetricRecord(
        key=metric.key,
        heading=metric.heading,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        protocol=protocol,
        value=value,
        low=low,
        high=high,
        level=intervals.LEVEL,
        method=intervals.method(score, of),
        units=score.units,
        population=of,
        speakers=0 if score.nesting is None else int(score.nesting.speakers.max()) + 1,
        low_these=same[0],
        high_these=same[1],
    )


def read_predictions(path: Path) -> list[Prediction]:
    """Read a predictions file.

    Raises:
        UserError: it is missing, or no predictions file, with the line.
    """
    with run_files.open_file(path.parent, path.name, run_files.MOST_IN_TABLES) as file:
        reader = csv.reader(io.TextIOWrapper(file, encoding="utf8", newline=""))
        try:
            predictions = list(_parse(path, reader))
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path}: line {reader.line_num + 1}: can't be read ({error}). Run it again.") from error
    if not predictions:
        raise UserError(f"{path}: holds no predictions. Run it again.")
    return predictions


def _parse(path: Path, rows: Iterator[list[str]]) -> Iterator[Prediction]:
    """Yield the predictions of a table whose first row names the columns."""
    columns = tuple(next(rows, ()))
    if columns not in (Prediction._fields, _WITHOUT_SPEAKERS):
        raise UserError(f"{path}: expected the columns {', '.join(Prediction._fields)}. Run it again.")
    for number, cells in enumerate(rows, start=1):
        if number > MOST_ROWS:
            raise UserError(f"{path}: holds more than {MOST_ROWS} predictions. Is it the right file?")
        if len(cells) != len(columns):
            raise UserError(f"{path}: row {number} has {len(cells)} cells, expected {len(columns)}. Run it again.")
        if not (cells[3].isdecimal() and len(cells[3]) <= 4):
            raise UserError(f"{path}: row {number}: fold {cells[3][:40]!r} is no number of a fold. Run it again.")
        row_id, truth, answer, fold, *speaker = cells
        yield Prediction(row_id, truth, answer, int(fold), speaker[0] if speaker else "")


def load_task(record: RunRecord, folder: Path) -> BaseTask:
    """Return the task of a finished run, for scoring alone: without what only decoding needs.

    Raises:
        UserError: the task is unknown here, or its settings or labels are not those of this version.
    """
    task_class = registry.get(record.task)
    try:
        head = task_class.Head.model_validate(record.recipe.get("head", {}))
    except ValidationError as error:
        why = records.format_error(error)
        raise UserError(f"{folder}: its recipe's head is not valid in this version ({why}). Run it again.") from error
    task = task_class.__new__(task_class)
    # Not `task_class.__init__`: a recogniser would open its language model there, and scoring needs none.
    BaseTask.__init__(task, Setup(read_labels(folder, task_class), head, record.upstream.stride))
    return task


def read_labels(folder: Path, task: type[BaseTask]) -> Any:
    """Return what the outputs of a run's first head mean, in the form of its task; None: the run stored none.

    Raises:
        UserError: the file can't be read, or holds no labels of that form.
    """
    if not run_files.exists(folder, records.LABELS):  # a search task learns none
        return None
    form = TypeAdapter(dict[str, task.LabelForm | None])  # type: ignore[name-defined]
    try:
        labels = form.validate_json(run_files.read_bytes(folder, records.LABELS))["1"]
    except (ValidationError, KeyError) as error:
        why = records.format_error(error) if isinstance(error, ValidationError) else "no key 1"
        raise UserError(f"{folder / records.LABELS}: holds no labels of fold 1 ({why}). Run it again.") from error
    return labels


def run_predictions(folder: Path, historical: bool = False) -> list[Prediction]:
    """Return a run's strict predictions; with `historical`, the historical ones where the task has them.

    Raises:
        UserError: see `read_predictions`.
    """
    has_historical = historical and run_files.exists(folder, records.HISTORICAL)
    return read_predictions(folder / (records.HISTORICAL if has_historical else records.PREDICTIONS))
