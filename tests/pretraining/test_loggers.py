"""The log of a training: `log.csv`, the progress bar's postfix, Lightning's loggers (real ones where installed)."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from superb_eval.errors import UserError
from superb_eval.pretraining.training_log import TrainingLog
from superb_eval.runtime import loggers as loggers_module


class Recorder:
    """Stands in for Lightning's loggers: records the calls."""

    made: list[Recorder] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, **settings: Any) -> None:
        self.settings, self.lines, self.params, self.status = settings, [], None, None
        self.run_id = settings.get("run_id") or "run-1"
        self.finished = 0
        self.experiment = types.SimpleNamespace(finish=self._finish)
        Recorder.made.append(self)

    def _finish(self) -> None:
        self.finished += 1

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.lines.append((step, metrics))

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.params = params

    def save(self) -> None:
        self.saved = len(self.lines)

    def finalize(self, status: str) -> None:
        self.status = status


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    """Make both loggers of Lightning recorders, whether it is installed or not."""
    monkeypatch.setattr(Recorder, "made", [])
    loggers = types.ModuleType("lightning.pytorch.loggers")
    loggers.WandbLogger = loggers.MLFlowLogger = Recorder  # type: ignore[attr-defined]
    for name, module in {
        "lightning": types.ModuleType("lightning"),
        "lightning.pytorch": types.ModuleType("lightning.pytorch"),
        "lightning.pytorch.loggers": loggers,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(loggers_module, "_missing_packages", lambda name: [])
    return Recorder


def train(folder: Path, curve: list[dict[str, float]], *names: str) -> None:
    with TrainingLog(folder, curve, writes=True, names=loggers_module.choose(names)) as log:
        first = len(curve) + 1
        for step in range(first, first + 2):
            log.add(step, {"loss": 1 / step}, seconds=1.0)
            log.write_means(float(step))


def test_lines_and_recipe_are_logged_and_a_run_is_resumed(lightning: type[Recorder], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("seed: 3\noptim: {steps: 4}\n")
    curve: list[dict[str, float]] = []
    train(tmp_path, curve, "wandb", "mlflow")
    train(tmp_path, curve, "wandb", "mlflow")
    wandb, mlflow, wandb_again, mlflow_again = lightning.made
    assert [(step, line["loss"]) for step, line in wandb.lines] == [(1, 1.0), (2, 0.5)]
    assert [step for step, _ in mlflow_again.lines] == [3, 4]
    assert all("step" not in line for logger in lightning.made for _, line in logger.lines)
    assert all(logger.params == {"seed": 3, "optim": {"steps": 4}} for logger in lightning.made)
    assert wandb.settings["id"] == wandb_again.settings["id"] and wandb.settings["resume"] == "allow"
    assert (mlflow.settings["run_id"], mlflow_again.settings["run_id"]) == (None, "run-1")
    assert all(logger.status == "success" and logger.finished == 1 for logger in lightning.made)


def test_two_trainings_are_two_runs_and_a_failed_one_is_marked(lightning: type[Recorder], tmp_path: Path) -> None:
    train(tmp_path / "a", [], "wandb")
    with (
        pytest.raises(KeyboardInterrupt),
        TrainingLog(tmp_path / "b", [], writes=True, names=("wandb",)),
    ):
        raise KeyboardInterrupt
    first, second = lightning.made
    assert first.settings["id"] != second.settings["id"]
    assert (first.status, second.status) == ("success", "failed")


def test_other_processes_log_nothing(lightning: type[Recorder], tmp_path: Path) -> None:
    with TrainingLog(tmp_path, [], writes=False, names=("wandb",)) as log:
        log.add(1, {"loss": 1.0}, 1.0)
        log.write_means(1.0)
    assert not lightning.made


def test_unknown_and_missing_loggers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no logger is called 'wandbb'\. Did you mean 'wandb'\? Known: tensorboard,"):
        loggers_module.choose(["wandbb"])
    monkeypatch.setattr(loggers_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--loggers mlflow: lightning and mlflow can't be imported\. pip install 'sup"):
        loggers_module.choose(["mlflow"])
    assert loggers_module.choose(None) == ()
    assert loggers_module.choose([]) == ()


def test_tensorboard_holds_the_curve_once_though_the_training_was_killed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curve: list[dict[str, float]] = []
    train(tmp_path, curve, "tensorboard")
    train(tmp_path, curve[:1], "tensorboard")  # lines after the last checkpoint are dropped
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = {event.step: event.value for event in events.Scalars("loss")}
    assert shown == pytest.approx({1: 1.0, 2: 0.5, 3: 1 / 3})
    assert sorted(events.Tags()["scalars"]) == ["audio_s_per_s", "hours", "loss"]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_the_real_logger_accepts_the_lines(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)  # first: importing Lightning takes seconds
    pytest.importorskip("lightning")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    curve: list[dict[str, float]] = []
    train(tmp_path, curve, name)
    train(tmp_path, curve, name)
    assert list((tmp_path / "wandb").glob("offline-run-*")) if name == "wandb" else (tmp_path / "mlflow.db").is_file()
