"""The state of probes in training, one for each learning rate: curve, best weights, and the checkpoint to resume."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from downstreams.base import TrainedTask
from downstreams.metrics.scores import Metric
from superb_eval.probing.probe import Probe, save_weights
from superb_eval.runtime import atomic_files, safetensors_io

BEST, BEST_ON_TEST, LAST = "best.safetensors", "best-on-test.safetensors", "last.pt"
"""In a training's folder: the best weights on dev, the best on test (where the task tracks them), the checkpoint."""


@dataclass
class Best:
    """The best evaluation so far on one split."""

    step: int = 0
    value: float | None = None

    def is_beaten_by(self, value: float, higher_is_better: bool) -> bool:
        """Return whether `value` is strictly better."""
        if self.value is None:
            return True
        return value > self.value if higher_is_better else value < self.value


@dataclass
class TrainingState:
    """How far training is.

    `curve`: one dict per evaluation with step, loss, dev, and test where it is tracked. `skipped` counts updates that
    were left out because their gradient was not finite; `diverged_at` is the step at which training stopped since none
    was finite any more.
    """

    step: int = 0
    best: Best = field(default_factory=Best)
    best_on_test: Best = field(default_factory=Best)
    curve: list[dict[str, float]] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)
    skipped: int = 0
    diverged_at: int | None = None


@dataclass
class ProbeState:
    """A probe that trains with a learning rate of its own. `folder` gets its best weights."""

    lr: float
    probe: Probe
    folder: Path
    state: TrainingState = field(default_factory=TrainingState)

    def record(self, point: dict[str, float], dev_higher_is_better: bool, test_higher_is_better: bool) -> None:
        """Append an evaluation to the curve, and save the weights where they are strictly better than any before."""
        self.state.step = int(point["step"])
        self.state.curve.append(point)
        if self.state.best.is_beaten_by(point["dev"], dev_higher_is_better):
            self.state.best = Best(self.state.step, point["dev"])
            save_weights(self.folder / BEST, self.probe)
        if "test" in point and self.state.best_on_test.is_beaten_by(point["test"], test_higher_is_better):
            self.state.best_on_test = Best(self.state.step, point["test"])
            save_weights(self.folder / BEST_ON_TEST, self.probe)


def selection_metric(task: TrainedTask) -> Metric:
    """Return the metric that selects a task's checkpoint, and its learning rate, on dev."""
    return task.criterion or task.metrics[0]


def best_on_dev(states: Sequence[ProbeState], task: TrainedTask) -> ProbeState:
    """Return the probe whose best dev value is best; the first of equals. Those that diverged don't count."""
    chosen, *others = [state for state in states if state.state.diverged_at is None]
    for state in others:
        value = state.state.best.value
        if value is not None and chosen.state.best.is_beaten_by(value, selection_metric(task).higher_is_better):
            chosen = state
    return chosen


def describe_divergence(state: ProbeState) -> str:
    """Return a sentence about a learning rate that diverged."""
    return (
        f"learning rate {state.lr:g} diverged: from some update on, none had a finite gradient; "
        f"it was left out after step {state.state.diverged_at}"
    )


def save(path: Path, step: int, states: Sequence[ProbeState], optimizers: Sequence[Optimizer], code: str) -> None:
    """Write the checkpoint that `resume` reads, atomically.

    `optimizers` are those of the probes that have not diverged, `code` the versions that `resume` must find again.
    """
    content = {
        "code": code,
        "step": step,
        "probes": [state.probe.state_dict() for state in states],
        "states": [asdict(state.state) for state in states],
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    atomic_files.write(path, lambda temporary: torch.save(content, temporary))


def resume(path: Path, states: Sequence[ProbeState], code: str) -> tuple[int, list[dict[str, Any]]]:
    """Fill probes and their states from the checkpoint; return its step and the optimizers' states.

    Where there is none these are 0 and []. A damaged checkpoint, or one of another version, whose updates would not be
    those of this one, is reported as a warning, and training starts over.
    """
    content = _read(path, states, code)
    if content is None:
        return 0, []
    for state, weights, saved in zip(states, content["probes"], content["states"], strict=True):
        state.probe.load_state_dict(weights)
        best, best_on_test = Best(**saved.pop("best")), Best(**saved.pop("best_on_test"))
        state.state = TrainingState(best=best, best_on_test=best_on_test, **saved)
        if state.state.diverged_at is None:
            state.state.resumed_at.append(content["step"])
    return content["step"], content["optimizers"]


def _read(path: Path, states: Sequence[ProbeState], code: str) -> dict[str, Any] | None:
    """Return a checkpoint; None where there is none, or with a warning where it can't be continued."""
    if not path.is_file():
        return None
    reading = path
    try:
        atomic_files.check_archive(path)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if content.get("code") != code:
            warnings.warn(f"{path}: of another version than {code}; this training starts over", stacklevel=2)
            return None
        for state, weights, saved in zip(states, content["probes"], content["states"], strict=True):
            _check_shapes(state.probe, weights)
            for name, key in ((BEST, "best"), (BEST_ON_TEST, "best_on_test")):
                if saved[key]["value"] is not None:
                    reading = state.folder / name
                    safetensors_io.read(reading)
    except Exception as error:  # damaged bytes may raise anything
        reason = f"{type(error).__name__}: {error}"[:160]
        warnings.warn(f"{reading}: damaged ({reason}); this training starts over", stacklevel=2)
        return None
    return content


def _check_shapes(probe: Probe, weights: Mapping[str, Tensor]) -> None:
    expected = {name: tensor.shape for name, tensor in probe.state_dict().items()}
    if expected != {name: tensor.shape for name, tensor in weights.items()}:
        raise ValueError("its weights are those of another head")
