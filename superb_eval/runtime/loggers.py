"""TensorBoard, Weights & Biases and MLflow, by Lightning's loggers: a run in each for every training and evaluation.

What resumes from its checkpoint resumes its run in each of them, too.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from superb_eval.errors import UserError, near_miss
from superb_eval.runtime import atomic_files, locks, outside_files

PROJECT = "superb-eval"
"""Of the runs in Weights & Biases; the experiment's name in MLflow."""

TENSORBOARD = "tensorboard"
"""The logger, and the subfolder with its event files."""

WANDB_RUN, MLFLOW_RUN = "wandb-run.txt", "mlflow-run.txt"
"""In the folder of a training or an evaluation: the id of its run."""


class Logger(Protocol):
    """The methods of Lightning's loggers that are used here."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Log the metrics of an update."""

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Log hyperparameters."""

    def save(self) -> None:
        """Write what is buffered."""

    def finalize(self, status: str) -> None:
        """Flush; `status` is `success` or `failed`."""


@dataclass(frozen=True)
class LoggedRun:
    """A training or an evaluation as loggers show it.

    `folder` gets TensorBoard's events and the ids of the other runs, `name` is what those are called. MLflow's data go
    to `database`, a folder, where MLFLOW_TRACKING_URI names no server. TensorBoard hides events from `purge_step` on
    that an earlier process logged (None: none).
    """

    folder: Path
    name: str
    database: Path
    hyperparameters: Mapping[str, Any]
    purge_step: int | None = None


def choose(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the loggers to use; for None, TensorBoard where it is installed.

    Raises:
        UserError: a name is unknown, or its packages are not installed.
    """
    if names is None:
        return () if _missing_packages(TENSORBOARD) else (TENSORBOARD,)
    for name in names:
        if name not in _LOGGERS:
            known = ", ".join(_LOGGERS)
            raise UserError(f"--loggers: no logger is called '{name}'.{near_miss(name, _LOGGERS)} Known: {known}.")
        if missing := _missing_packages(name):
            raise UserError(
                f"--loggers {name}: {' and '.join(missing)} can't be imported. pip install 'superb-eval[{name}]'."
            )
    return tuple(dict.fromkeys(names))


def open_loggers(names: Sequence[str], run: LoggedRun) -> dict[str, Logger]:
    """Open the loggers of a run, by name, and log its hyperparameters."""
    loggers = {name: _LOGGERS[name](run) for name in names}
    for logger in loggers.values():
        logger.log_hyperparams(dict(run.hyperparameters))
    return loggers


def log_results(loggers: Mapping[str, Logger], run: LoggedRun, metrics: dict[str, float], step: int) -> None:
    """Log the final metrics of a run; TensorBoard shows hyperparameters beside such metrics alone."""
    for name, logger in loggers.items():
        if name == TENSORBOARD:
            logger.log_hyperparams(dict(run.hyperparameters), metrics, step)  # type: ignore[call-arg]  # Fabric's own
        else:
            logger.log_metrics(metrics, step=step)


def close_loggers(loggers: Mapping[str, Logger], succeeded: bool) -> None:
    """Flush and close loggers."""
    for logger in loggers.values():
        logger.finalize("success" if succeeded else "failed")
        # Weights & Biases would log the next run of this process, as the training after a warm start, to the same one.
        finish = getattr(getattr(logger, "experiment", None), "finish", None)
        if callable(finish):
            finish()


def _missing_packages(name: str) -> list[str]:
    return [module for module in _PACKAGES[name] if importlib.util.find_spec(module) is None]


def _tensorboard(run: LoggedRun) -> Logger:
    from lightning_fabric.loggers import TensorBoardLogger

    logger: Logger = TensorBoardLogger(
        run.folder, name="", version=TENSORBOARD, purge_step=run.purge_step, default_hp_metric=False
    )
    return logger


def _wandb(run: LoggedRun) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    id_file = run.folder / WANDB_RUN
    if not id_file.is_file():
        atomic_files.write_text(id_file, secrets.token_hex(8))
    number = outside_files.read_text(id_file).strip()
    logger: Logger = WandbLogger(name=run.name, save_dir=run.folder, project=PROJECT, id=number, resume="allow")
    return logger


def _mlflow(run: LoggedRun) -> Logger:
    from lightning.pytorch.loggers import MLFlowLogger

    id_file = run.folder / MLFLOW_RUN
    number = outside_files.read_text(id_file).strip() if id_file.is_file() else None
    server = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(run.database / 'mlflow.db').resolve()}"
    mlflow = MLFlowLogger(experiment_name=PROJECT, run_name=run.name, tracking_uri=server, run_id=number)
    with locks.hold(run.database / ".mlflow.lock"):  # of two processes that create the experiment, one would fail
        atomic_files.write_text(id_file, str(mlflow.run_id))
    logger: Logger = mlflow
    return logger


_LOGGERS: dict[str, Callable[[LoggedRun], Logger]] = {TENSORBOARD: _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
_PACKAGES = {TENSORBOARD: ["tensorboard"], "wandb": ["lightning", "wandb"], "mlflow": ["lightning", "mlflow"]}
