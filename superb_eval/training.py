"""Trains one probe on stored features: one readable loop on Lightning Fabric.

A step is an update of the optimiser. Dev is evaluated every `eval_every` steps and after the last one; a strictly
better value keeps the weights (s3prl `downstream/runner.py`). The state of training is saved at each evaluation, so
that a killed run goes on from there and ends with the bits of an unbroken one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from downstreams.base import Task
from downstreams.sampling import Sampler, class_weights
from downstreams.scores import Metric
from superb_eval import audio, files
from superb_eval.errors import UserError
from superb_eval.features.gather import Crop
from superb_eval.probe import Probe, Split, decoded, save_weights, to_device
from superb_eval.recipe import TrainSettings

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}

BEST, BEST_ON_TEST, LAST = "best.safetensors", "best-on-test.safetensors", "last.pt"
"""In a training's folder: the weights that dev chose, those that test would choose, and the state to go on from."""

Progress = Callable[[int, str], None]
"""Called with (steps done, what to show beside the bar)."""


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
class State:
    """How far training has come. `curve`: one dict per evaluation, with step, loss, dev, and test if it is watched."""

    step: int = 0
    best: Best = field(default_factory=Best)
    best_on_test: Best = field(default_factory=Best)
    curve: list[dict[str, float]] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)


class Training:
    """The training of one probe: on `splits["train"]`, choosing on `splits["dev"]`, keeping its state in `folder`.

    Where the task asks for it (`Task.best_on_test`), the weights that score best on test are kept too, apart.
    """

    def __init__(
        self, probe: Probe, task: Task, splits: dict[str, Split], settings: TrainSettings, *, seed: int, folder: Path
    ) -> None:
        self.probe, self.task, self.splits, self.settings = probe, task, splits, settings
        self.seed, self.folder = seed, folder
        self.targets = [task.target(u) for u in splits["train"].manifest]
        self.state = State()

    def run(self, device: str, progress: Progress) -> State:
        """Train, taking up what was interrupted; leave the weights that dev chose in `folder`.

        Raises:
            UserError: the loss is no longer finite, or the disk is full; what was saved is kept.
        """
        fabric = _fabric(device, self.settings.precision)
        optimizer = OPTIMIZERS[self.settings.optimizer](self.probe.parameters(), lr=self.lr)
        self._resume(optimizer)
        module, optimizer = fabric.setup(self.probe, optimizer)
        train = self.splits["train"].manifest
        sampler = self.task.sampler(train, [audio.seconds(u.clip) for u in train], self.settings, self.seed)
        losses: list[float] = []
        while self.state.step < self.settings.steps:
            first = self.state.step * self.settings.accumulate
            batches = [sampler.batch(first + micro) for micro in range(self.settings.accumulate)]
            self.state.step += 1
            losses.append(self._update(fabric, module, optimizer, batches, self._crop(self.state.step)))
            if self.state.step % self.settings.eval_every == 0 or self.state.step == self.settings.steps:
                self._evaluate(sum(losses) / len(losses))
                self._save(optimizer)
                losses.clear()
            progress(self.state.step, self._beside())
        return self.state

    @property
    def lr(self) -> float:
        """The learning rate; a sweep is taken apart before (`superb_eval.probing`)."""
        (rate,) = self.settings.rates()
        return rate

    def _crop(self, step: int) -> Crop | None:
        """The random cut of an update's utterances: of their features, since the upstream has heard them whole."""
        if self.settings.crop_seconds is None:
            return None
        if self.task.whole:
            raise UserError(f"train.crop_seconds: {self.task.name} needs whole utterances; leave it out.")
        frames = round(self.settings.crop_seconds * audio.SAMPLE_RATE / self.task.setup.stride)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)

        def cut(row: Tensor) -> Tensor:
            start = int(torch.randint(max(0, len(row) - frames) + 1, (), generator=generator))
            return row[start : start + frames]

        return cut

    def _update(
        self, fabric: Any, module: nn.Module, optimizer: Any, batches: Sequence[Sequence[int]], crop: Crop | None
    ) -> float:
        """Make one update from its micro-batches; return their mean loss."""
        total = 0.0
        for indices in batches:
            batch = to_device(self.splits["train"].features.batch(indices, crop), fabric.device)
            output = module(batch.hidden, batch.lengths)
            loss = self.task.loss(output, batch.lengths, [self.targets[i] for i in indices])
            fabric.backward(loss / len(batches))
            total += loss.item() / len(batches)
        if not math.isfinite(total):
            raise self._diverged(total, batches)
        fabric.clip_gradients(module, optimizer, max_norm=self.settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        return total

    def _evaluate(self, loss: float) -> None:
        """Score dev, note it on the curve, and keep the weights where they are strictly better than any before."""
        state = self.state
        point = {"step": state.step, "loss": loss, "dev": self._score("dev")}
        if state.best.beaten_by(point["dev"], chooses(self.task).higher_is_better):
            state.best = Best(state.step, point["dev"])
            save_weights(self.folder / BEST, self.probe)
        if self.task.best_on_test:
            point["test"] = self._score("test")
            if state.best_on_test.beaten_by(point["test"], self.task.metrics[0].higher_is_better):
                state.best_on_test = Best(state.step, point["test"])
                save_weights(self.folder / BEST_ON_TEST, self.probe)
        state.curve.append(point)

    def _score(self, split: str) -> float:
        """Return the first metric on a split, or on the class-balanced resample of it that the recipe asks for.

        On dev it is the task's criterion where it has one.
        """
        manifest, features = self.splits[split].manifest, self.splits[split].features
        found = decoded(self.probe, self.task, features)
        if split == "dev" and self.task.criterion is not None:
            return self.task.select(manifest, found)
        rows = self.task.rows(manifest, found)
        if split == "dev" and "dev" in self.settings.balance:
            # The same draw at every evaluation, as in s3prl, where each evaluation starts from one seed.
            weights = class_weights(self.task.classes(manifest) or [""] * len(rows))
            rows = [rows[i] for i in Sampler(len(rows), len(rows), self.seed, weights).batch(0)]
        return self.task.score(rows)[0].value

    def _beside(self) -> str:
        """What stands beside the progress bar."""
        state = self.state
        if not state.curve:
            return ""
        last, heading = state.curve[-1], chooses(self.task).heading
        best = f"best {state.best.value:.2f} at {state.best.step}"
        return f"loss {last['loss']:.3f}  dev {heading} {last['dev']:.2f} ({best})"

    def _diverged(self, loss: float, batches: Sequence[Sequence[int]]) -> UserError:
        utterances = self.splits["train"].manifest.utterances
        ids = [utterances[i].id for indices in batches for i in indices]
        saved = int(self.state.curve[-1]["step"]) if self.state.curve else 0
        return UserError(
            f"step {self.state.step}: the loss is {loss} on utterances {', '.join(ids[:4])}, ... "
            f"Lower -o train.lr; the state of step {saved} is kept."
        )

    def _save(self, optimizer: Any) -> None:
        content = {
            "probe": self.probe.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "state": asdict(self.state),
        }
        files.write(self.folder / LAST, lambda temporary: torch.save(content, temporary))

    def _resume(self, optimizer: torch.optim.Optimizer) -> None:
        """Fill probe, optimiser and random state from the last save, where there is one."""
        path = self.folder / LAST
        if not path.is_file():
            return
        content = torch.load(path, map_location="cpu", weights_only=True)
        self.probe.load_state_dict(content["probe"])
        optimizer.load_state_dict(content["optimizer"])
        torch.set_rng_state(content["random"])
        kept = content["state"]
        best, best_on_test = Best(**kept.pop("best")), Best(**kept.pop("best_on_test"))
        self.state = State(best=best, best_on_test=best_on_test, **kept)
        self.state.resumed_at.append(self.state.step)


def chooses(task: Task) -> Metric:
    """Return the figure that chooses a task's checkpoint, and its learning rate, on dev."""
    return task.criterion or task.metrics[0]


def _fabric(device: str, precision: str) -> Any:
    from lightning_fabric import Fabric

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    accelerator = "cpu" if device == "cpu" else "cuda"
    return Fabric(accelerator=accelerator, devices=1, precision={"float32": "32-true", "bf16": "bf16-mixed"}[precision])
