"""Scores predictions, when a run is through and whenever it is looked at again."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from downstreams import registry
from downstreams.base import Prediction, Scored, Setup
from downstreams.metrics.scores import Score
from superb_eval.errors import UserError
from superb_eval.results import record as records
from superb_eval.results.record import MetricRecord, RunRecord
from superb_eval.results.stats import intervals


def metrics(task: Scored, rows: Sequence[Prediction], protocol: str) -> list[MetricRecord]:
    """Score predictions, each metric with its interval; `protocol` is `strict` or `historical`."""
    return [_metric(score, protocol) for score in task.score(rows)]


def _metric(score: Score, protocol: str) -> MetricRecord:
    low, high = intervals.interval(score)
    metric = score.metric
    return MetricRecord(
        key=metric.key,
        heading=metric.heading,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        protocol=protocol,
        value=score.value,
        low=low,
        high=high,
        level=intervals.LEVEL,
        method=intervals.method(score),
        units=score.units,
    )


def read_rows(path: Path) -> list[Prediction]:
    """Read a predictions file.

    Raises:
        UserError: it is missing, or no predictions file.
    """
    try:
        with path.open(encoding="utf8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != Prediction._fields:
                raise UserError(f"{path}: expected the columns {', '.join(Prediction._fields)}. Run the cell again.")
            found = [Prediction(cells["id"], cells["truth"], cells["answer"], int(cells["fold"])) for cells in reader]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: can't be read as predictions ({error}). Run the cell again.") from error
    if not found:
        raise UserError(f"{path}: holds no predictions. Run the cell again.")
    return found


def task_of(record: RunRecord, folder: Path) -> Scored:
    """Return the task of a finished run, able to score and no more: without what only decoding needs.

    Raises:
        UserError: the task is unknown here, or its settings or labels are not those of this version.
    """
    kind = registry.get(record.task)
    try:
        head = kind.Head.model_validate(record.recipe.get("head", {}))
    except ValidationError as error:
        why = records.format_error(error)
        raise UserError(f"{folder}: its recipe's head doesn't fit this version ({why}). Run it again.") from error
    task = kind.__new__(kind)
    # Not `kind.__init__`: a recogniser would open its language model there, and scoring needs none.
    Scored.__init__(task, Setup(_labels(folder), head, record.upstream.stride))
    return task


def _labels(folder: Path) -> Any:
    path = folder / records.LABELS
    if not path.is_file():  # a search learns none
        return None
    try:
        return json.loads(path.read_text(encoding="utf8"))["1"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: holds no labels of fold 1 ({error!r}). Run the cell again.") from error


def rows_of(folder: Path, historical: bool = False) -> list[Prediction]:
    """Return a run's predictions: the historical ones where they are asked for and there are any, else the strict.

    Raises:
        UserError: see `read_rows`.
    """
    path = folder / records.HISTORICAL
    return read_rows(path if historical and path.is_file() else folder / records.PREDICTIONS)
