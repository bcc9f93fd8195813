"""Scores predictions: at the end of a run, and again for comparisons, reports and `verify`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from downstreams import registry
from downstreams.base import BaseTask, Prediction, Setup, nested
from downstreams.metrics.scores import Score
from superb_eval.errors import UserError
from superb_eval.results import record as records
from superb_eval.results.record import MetricRecord, RunRecord
from superb_eval.results.stats import intervals, resampling
from superb_eval.results.stats.resampling import NEW_SPEAKERS, THESE_SPEAKERS

_WITHOUT_SPEAKERS = Prediction._fields[:-1]
"""The columns of records before schema 4."""


def scores(task: BaseTask, rows: Sequence[Prediction]) -> list[Score]:
    """Return the scores of predictions, with the speakers that their units are nested in."""
    return nested(task, task.score(rows), rows)


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
        UserError: it is missing, or no predictions file.
    """
    try:
        with path.open(encoding="utf8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) not in (Prediction._fields, _WITHOUT_SPEAKERS):
                raise UserError(f"{path}: expected the columns {', '.join(Prediction._fields)}. Run it again.")
            predictions = [
                Prediction(cells["id"], cells["truth"], cells["answer"], int(cells["fold"]), cells.get("speaker", ""))
                for cells in reader
            ]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: can't be read as predictions ({error}). Run it again.") from error
    if not predictions:
        raise UserError(f"{path}: holds no predictions. Run it again.")
    return predictions


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
    BaseTask.__init__(task, Setup(_labels(folder), head, record.upstream.stride))
    return task


def _labels(folder: Path) -> Any:
    path = folder / records.LABELS
    if not path.is_file():  # a search task learns none
        return None
    try:
        return json.loads(path.read_text(encoding="utf8"))["1"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: holds no labels of fold 1 ({error!r}). Run it again.") from error


def run_predictions(folder: Path, historical: bool = False) -> list[Prediction]:
    """Return a run's strict predictions; with `historical`, the historical ones where the task has them.

    Raises:
        UserError: see `read_predictions`.
    """
    path = folder / records.HISTORICAL
    return read_predictions(path if historical and path.is_file() else folder / records.PREDICTIONS)
