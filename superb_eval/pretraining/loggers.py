"""The log of a training: `log.csv`, the postfix of the progress bar, and Lightning's loggers.

`log.csv` is always written. TensorBoard, Weights & Biases and MLflow are optional; when a training resumes from its
checkpoint, its run in each of them resumes too.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from superb_eval.errors import UserError, near_miss
from superb_eval.runtime import atomic_files

CSV = "log.csv"

PROJECT = "superb-eval"
"""Of the runs in Weights & Biases; the experiment's name in MLflow."""

MLFLOW_RUN = "mlflow-run.txt"
"""In a training's folder: the id of its run in MLflow."""

NOT_IN_POSTFIX = {"step", "hours", "audio_s_per_s", "gradient", "lr"}
"""Columns of the log that the progress bar leaves out."""


class Logger(Protocol):
    """The methods of Lightning's loggers that are used here."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Log one line."""

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Log the recipe."""

    def finalize(self, status: str) -> None:
        """Flush; `status` is `success` or `failed`."""


class TrainingLog:
    """The log of one training; its lines are means over the updates since the line before.

    `curve` holds the lines; it is appended to, and has the earlier ones when a training resumes. Each line also goes
    to the `loggers` of these names. Only the process that `writes` writes files and opens loggers.
    """

    def __init__(self, folder: Path, curve: list[dict[str, float]], writes: bool, loggers: Sequence[str] = ()) -> None:
        self.folder, self.curve, self.writes, self.names = folder, curve, writes, loggers
        self._sums: dict[str, float] = {}
        self._count, self._seconds, self._step, self._since = 0, 0.0, 0, time.monotonic()
        self._loggers: list[Logger] = []

    def __enter__(self) -> TrainingLog:
        if self.writes:
            first = int(self.curve[-1]["step"]) + 1 if self.curve else 0
            self._loggers = _open_all(self.names, self.folder, first)
            self._write()
        return self

    def __exit__(self, *error: object) -> None:
        for logger in self._loggers:
            _close(logger, succeeded=error[0] is None)

    def add(self, step: int, values: dict[str, float], seconds: float) -> None:
        """Add an update: its loss and terms, and the seconds of its audio."""
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count, self._seconds, self._step = self._count + 1, self._seconds + seconds, step

    def write_means(self, total_seconds: float) -> None:
        """Write a line: means since the last one. `total_seconds` is the audio of all updates so far."""
        means = {key: value / self._count for key, value in self._sums.items()}
        speed = self._seconds / max(time.monotonic() - self._since, 1e-9)
        self._append({"step": self._step, **means, "hours": total_seconds / 3600, "audio_s_per_s": speed})
        self._sums, self._count, self._seconds, self._since = {}, 0, 0.0, time.monotonic()

    def write_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Write a line of metrics that were measured at an update, such as a probe's."""
        if metrics:
            self._append({"step": step, **metrics})
            self._since = time.monotonic()  # the time of the measurement is none of the training's

    def postfix(self) -> str:
        """Return the text after the progress bar: the last line's loss and speed."""
        lines = [line for line in self.curve if "loss" in line]
        if not lines:
            return ""
        values = [f"{key} {value:.3f}" for key, value in lines[-1].items() if key not in NOT_IN_POSTFIX]
        return f"{'  '.join(values)}  {lines[-1]['audio_s_per_s']:.0f} audio-s/s"

    def _append(self, line: dict[str, float]) -> None:
        self.curve.append(line)
        if self.writes:
            self._write()
        for logger in self._loggers:
            logger.log_metrics({key: value for key, value in line.items() if key != "step"}, step=int(line["step"]))

    def _write(self) -> None:
        columns = list(dict.fromkeys(key for line in self.curve for key in line))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in line.items()} for line in self.curve)
        atomic_files.write_text(self.folder / CSV, text.getvalue())


def choose(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the loggers to use; for None, TensorBoard where it is installed.

    Raises:
        UserError: a name is unknown, or its packages are not installed.
    """
    if names is None:
        return () if _missing_packages("tensorboard") else ("tensorboard",)
    for name in names:
        if name not in _LOGGERS:
            known = ", ".join(_LOGGERS)
            raise UserError(f"--loggers: no logger is called '{name}'.{near_miss(name, _LOGGERS)} Known: {known}.")
        if missing := _missing_packages(name):
            raise UserError(
                f"--loggers {name}: {' and '.join(missing)} can't be imported. pip install 'superb-eval[{name}]'."
            )
    return tuple(dict.fromkeys(names))


def _open_all(names: Sequence[str], folder: Path, first: int) -> list[Logger]:
    """Open the loggers of the training in `folder`, whose next update is `first`, and log its recipe."""
    loggers = [_LOGGERS[name](folder, first) for name in names]
    recipe = folder / "recipe.yaml"
    if recipe.is_file():
        for logger in loggers:
            logger.log_hyperparams(yaml.safe_load(recipe.read_text(encoding="utf8")))
    return loggers


def _close(logger: Logger, succeeded: bool) -> None:
    logger.finalize("success" if succeeded else "failed")
    # Weights & Biases would log the next training of this process, as after the warm start, to the same run.
    finish = getattr(getattr(logger, "experiment", None), "finish", None)
    if callable(finish):
        finish()


def _missing_packages(name: str) -> list[str]:
    return [module for module in _PACKAGES[name] if importlib.util.find_spec(module) is None]


def _tensorboard(folder: Path, first: int) -> Logger:
    from lightning_fabric.loggers import TensorBoardLogger

    # purge_step drops what a killed run logged after its last checkpoint.
    logger: Logger = TensorBoardLogger(
        folder, name="", version="tensorboard", purge_step=first, default_hp_metric=False
    )
    return logger


def _wandb(folder: Path, first: int) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    del first
    run = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    logger: Logger = WandbLogger(name=folder.name, save_dir=folder, project=PROJECT, id=run, resume="allow")
    return logger


def _mlflow(folder: Path, first: int) -> Logger:
    from lightning.pytorch.loggers import MLFlowLogger

    del first
    id_file = folder / MLFLOW_RUN
    run = id_file.read_text(encoding="utf8").strip() if id_file.is_file() else None
    server = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    mlflow = MLFlowLogger(experiment_name=PROJECT, run_name=folder.name, tracking_uri=server, run_id=run)
    atomic_files.write_text(id_file, str(mlflow.run_id))
    logger: Logger = mlflow
    return logger


_LOGGERS: dict[str, Callable[[Path, int], Logger]] = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
_PACKAGES = {"tensorboard": ["tensorboard"], "wandb": ["lightning", "wandb"], "mlflow": ["lightning", "mlflow"]}
