"""The trainings of one fold, one for each learning rate: how far each has come, and how that is kept."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from downstreams.base import Task
from downstreams.metrics.scores import Metric
from superb_eval.probing.probe import Probe, save_weights
from superb_eval.runtime import atomic_files, safetensors_io

BEST, BEST_ON_TEST, LAST = "best.safetensors", "best-on-test.safetensors", "last.pt"
"""In a training's folder: the weights that dev chose, those that test would choose, and the state to go on from."""


@dataclass
class Best:
    """The best evaluation so far by some measure."""

    step: int = 0
    value: float | None = None

    def beaten_by(self, value: float, higher_is_better: bool) -> bool:
        """Whether `value` is strictly better."""
        if self.value is None:
            return True
        return value > self.value if higher_is_better else value < self.value


@dataclass
class TrainingState:
    """How far training has come. `curve`: one dict per evaluation, with step, loss, dev, and test if it is watched."""

    step: int = 0
    best: Best = field(default_factory=Best)
    best_on_test: Best = field(default_factory=Best)
    curve: list[dict[str, float]] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)


@dataclass
class ProbeState:
    """A probe that trains with a learning rate of its own. `folder` gets its best weights."""

    lr: float
    probe: Probe
    folder: Path
    state: TrainingState = field(default_factory=TrainingState)

    def note(self, point: dict[str, float], dev_is_higher: bool, test_is_higher: bool) -> None:
        """Put an evaluation on the curve, and keep the weights where they are strictly better than any before."""
        self.state.step = int(point["step"])
        self.state.curve.append(point)
        if self.state.best.beaten_by(point["dev"], dev_is_higher):
            self.state.best = Best(self.state.step, point["dev"])
            save_weights(self.folder / BEST, self.probe)
        if "test" in point and self.state.best_on_test.beaten_by(point["test"], test_is_higher):
            self.state.best_on_test = Best(self.state.step, point["test"])
            save_weights(self.folder / BEST_ON_TEST, self.probe)


def save(path: Path, members: Sequence[ProbeState], optimizer: torch.optim.Optimizer) -> None:
    """Write what is needed to go on from here."""
    content = {
        "probes": [member.probe.state_dict() for member in members],
        "states": [asdict(member.state) for member in members],
        "optimizer": optimizer.state_dict(),
    }
    atomic_files.write(path, lambda temporary: torch.save(content, temporary))


def resume(path: Path, members: Sequence[ProbeState], optimizer: torch.optim.Optimizer) -> int:
    """Fill members and optimiser from the last save, where there is a whole one; return its step."""
    content = _saved(path, members)
    if content is None:
        return 0
    for member, weights, kept in zip(members, content["probes"], content["states"], strict=True):
        member.probe.load_state_dict(weights)
        best, best_on_test = Best(**kept.pop("best")), Best(**kept.pop("best_on_test"))
        member.state = TrainingState(best=best, best_on_test=best_on_test, **kept)
        member.state.resumed_at.append(member.state.step)
    optimizer.load_state_dict(content["optimizer"])
    return members[0].state.step


def _saved(path: Path, members: Sequence[ProbeState]) -> dict[str, Any] | None:
    """Return what was saved last; None where there is nothing, or where part of it is damaged, which is said."""
    if not path.is_file():
        return None
    reading = path
    try:
        atomic_files.check_archive(path)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        for member, state in zip(members, content["states"], strict=True):
            for name, key in ((BEST, "best"), (BEST_ON_TEST, "best_on_test")):
                if state[key]["value"] is not None:
                    reading = member.folder / name
                    safetensors_io.read(reading)
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean
        reason = f"{type(error).__name__}: {error}"[:160]
        warnings.warn(f"{reading}: damaged ({reason}); this training begins anew", stacklevel=2)
        return None
    return content


def chooses(task: Task) -> Metric:
    """Return the figure that chooses a task's checkpoint, and its learning rate, on dev."""
    return task.criterion or task.metrics[0]


def best(team: Sequence[ProbeState], task: Task) -> ProbeState:
    """Return the member whose best dev figure is best; the first of equals."""
    chosen = team[0]
    for member in team[1:]:
        value = member.state.best.value
        if value is not None and chosen.state.best.beaten_by(value, chooses(task).higher_is_better):
            chosen = member
    return chosen
