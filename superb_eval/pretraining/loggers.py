"""Where else the lines of a training's log go: TensorBoard, Weights & Biases, MLflow, each through Lightning's logger.

None of them is needed: `log.csv` is always written, and a training goes on from its checkpoint. When it does, so does
its run in each of them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from superb_eval.errors import UserError, near_miss
from superb_eval.runtime import atomic_files

PROJECT = "superb-eval"
"""Of the runs in Weights & Biases; the experiment's name in MLflow."""

MLFLOW_RUN = "mlflow-run.txt"
"""In a training's folder: the run to go on with in MLflow."""


class LoggerSpec(Protocol):
    """What is used of Lightning's loggers."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Take in a line."""

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Take in the recipe."""

    def finalize(self, status: str) -> None:
        """Write out what is left; `status` is `success` or `failed`."""


def chosen(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the boards to write to; without any named, TensorBoard where it is installed.

    Raises:
        UserError: an unknown one, or one whose packages are not installed.
    """
    if names is None:
        return () if _missing("tensorboard") else ("tensorboard",)
    for name in names:
        if name not in _OPEN:
            known = ", ".join(_OPEN)
            raise UserError(f"--loggers: no logger is called '{name}'.{near_miss(name, _OPEN)} Known: {known}.")
        if missing := _missing(name):
            raise UserError(
                f"--loggers {name}: {' and '.join(missing)} can't be imported. pip install 'superb-eval[{name}]'."
            )
    return tuple(dict.fromkeys(names))


def opened(names: Sequence[str], folder: Path, first: int) -> list[LoggerSpec]:
    """Open boards for the training in `folder`, whose next update is `first`, and show them its recipe."""
    boards = [_OPEN[name](folder, first) for name in names]
    recipe = folder / "recipe.yaml"
    if recipe.is_file():
        for board in boards:
            board.log_hyperparams(yaml.safe_load(recipe.read_text(encoding="utf8")))
    return boards


def close(board: LoggerSpec, succeeded: bool) -> None:
    """Let a board write out what is left."""
    board.finalize("success" if succeeded else "failed")
    # Weights & Biases would take the next training of this process, such as that after the warm start, for the same.
    finish = getattr(getattr(board, "experiment", None), "finish", None)
    if callable(finish):
        finish()


def _missing(name: str) -> list[str]:
    return [module for module in _NEEDS[name] if importlib.util.find_spec(module) is None]


def _tensorboard(folder: Path, first: int) -> LoggerSpec:
    from lightning_fabric.loggers import TensorBoardLogger

    # What a killed run wrote after its last checkpoint is dropped.
    board: LoggerSpec = TensorBoardLogger(
        folder, name="", version="tensorboard", purge_step=first, default_hp_metric=False
    )
    return board


def _wandb(folder: Path, first: int) -> LoggerSpec:
    from lightning.pytorch.loggers import WandbLogger

    del first
    run = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    board: LoggerSpec = WandbLogger(name=folder.name, save_dir=folder, project=PROJECT, id=run, resume="allow")
    return board


def _mlflow(folder: Path, first: int) -> LoggerSpec:
    from lightning.pytorch.loggers import MLFlowLogger

    del first
    kept = folder / MLFLOW_RUN
    run = kept.read_text(encoding="utf8").strip() if kept.is_file() else None
    server = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    board = MLFlowLogger(experiment_name=PROJECT, run_name=folder.name, tracking_uri=server, run_id=run)
    atomic_files.write_text(kept, str(board.run_id))
    opened: LoggerSpec = board
    return opened


_OPEN: dict[str, Callable[[Path, int], LoggerSpec]] = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
_NEEDS = {"tensorboard": ["tensorboard"], "wandb": ["lightning", "wandb"], "mlflow": ["lightning", "mlflow"]}
