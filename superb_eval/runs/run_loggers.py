"""What loggers show of a run: the curves of its trainings by fold and learning rate, and its figures on test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from superb_eval.errors import UserError
from superb_eval.probing.folds import WORK
from superb_eval.results.record import MetricRecord
from superb_eval.runs.config import PreparedRun
from superb_eval.runtime import atomic_files, loggers, outside_files
from superb_eval.runtime.loggers import LoggedRun, Logger

LOGGED = "logged.json"
"""In a run's `training` folder: the last step that was logged of each series."""

_STEPS = TypeAdapter(dict[str, float])

RESULTS = "results"
"""The series of the figures on test."""


class RunLoggers:
    """The loggers of one run, open while its context lasts.

    A run that was killed and is resumed computes what it computed before, so each step is logged once: `LOGGED` holds
    how far each series was.
    """

    def __init__(self, run: PreparedRun) -> None:
        folder, out = run.folder(), run.config.out
        name = folder.relative_to(out).as_posix()
        self.names, self.run = run.config.loggers, LoggedRun(folder, name, out, _hyperparameters(run))
        self._path = folder / WORK / LOGGED
        self._logged: dict[str, float] = {}
        self._loggers: dict[str, Logger] = {}

    def __enter__(self) -> RunLoggers:
        self._loggers = loggers.open_loggers(self.names, self.run)
        self._logged = self._read()
        return self

    def __exit__(self, *error: object) -> None:
        loggers.close_loggers(self._loggers, succeeded=error[0] is None)

    def _read(self) -> dict[str, float]:
        """Return how far each series was logged; of a damaged file nothing: steps logged twice lose no figure."""
        try:
            return _STEPS.validate_json(outside_files.read_bytes(self._path))
        except (UserError, ValidationError):
            return {}

    def log(self, series: str, points: Sequence[Mapping[str, float]]) -> None:
        """Log the points of a series that were not logged before; each has its `step`, and metrics by name."""
        missing = [point for point in points if point["step"] > self._logged.get(series, -1)]
        for point in missing if self._loggers else []:
            step = int(point["step"])
            metrics = {"/".join(filter(None, (series, name))): value for name, value in point.items() if name != "step"}
            for logger in self._loggers.values():
                logger.log_metrics(metrics, step=step)
            self._mark(series, step)

    def log_results(self, metrics: Sequence[MetricRecord], step: int) -> None:
        """Log the figures on test, after the last step."""
        if self._loggers and RESULTS not in self._logged:
            figures = {f"{_split(metric)}/{metric.key}": metric.value for metric in metrics}
            loggers.log_results(self._loggers, self.run, figures, step)
            self._mark(RESULTS, step)

    def _mark(self, series: str, step: int) -> None:
        """Store that a series is logged up to a step, once the loggers have written it."""
        for logger in self._loggers.values():
            logger.save()
        self._logged[series] = step
        atomic_files.write_text(self._path, json.dumps(self._logged))


def _split(metric: MetricRecord) -> str:
    return "test" if metric.protocol == "strict" else f"test_{metric.protocol}"


def _hyperparameters(run: PreparedRun) -> dict[str, Any]:
    return {
        "upstream": run.config.upstream,
        "seed": run.config.seed,
        "corpus": run.corpus.name,
        "device": run.config.device,
        **run.recipe.model_dump(mode="json"),
    }
