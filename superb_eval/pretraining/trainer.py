"""The training loop that pre-training and distillation share: updates, log, checkpoints, resuming.

All random draws of an update are seeded by run, update and process, so that no random state has to be saved: a
training that was killed and resumed has the same weights, bit for bit, as an uninterrupted one. A batch is shared by
all processes, and each term of the loss is a mean over all of its frames: the loss curve doesn't depend on the number
of processes.

The results of an update are read from the device when the next one has been launched, so that the device never waits
for the CPU; before a checkpoint or a probe, all updates have been read.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from superb_eval.data.audio import SAMPLE_RATE
from superb_eval.errors import UserError
from superb_eval.pretraining import checkpoints
from superb_eval.pretraining.batches import Batch, Batches
from superb_eval.pretraining.checkpoints import State
from superb_eval.pretraining.objective import NotFiniteError, Objective, PendingStep, reduce_terms
from superb_eval.pretraining.recipe import OptimSettings
from superb_eval.pretraining.training_log import TrainingLog
from superb_eval.runtime.prefetch import prefetch
from superb_eval.runtime.progress import Progress

LAST = "last.pt"
"""In a training's folder: the checkpoint to resume from."""

LOADERS = 4
"""Threads that load batches ahead."""

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C, and the signals by which schedulers end a job."""


@dataclass
class Hooks:
    """Callbacks between updates, called on the first process."""

    evaluate: Callable[[int], dict[str, float]] | None = None
    """Called every `evaluate_every` updates and after the last, with the update's number and the network in evaluation
    mode; returns metrics for the log."""
    evaluate_every: int = 0
    on_checkpoint: Callable[[int], None] | None = None
    """Called after each checkpoint with the update's number, to export the current network."""


def lr_factor(settings: OptimSettings, step: int) -> float:
    """Return the share of the peak learning rate at an update: linear up from 0, then down to 0 after the last."""
    peak = max(1.0, settings.warmup * settings.steps)
    return step / peak if step <= peak else (settings.steps + 1 - step) / (settings.steps + 1 - peak)


def create_optimizer(objective: Objective, settings: OptimSettings) -> torch.optim.Optimizer:
    """Return AdamW with the convolutions in a parameter group of their own; a group's `factor` scales its rate.

    Convolutions of rate 0 are frozen: no gradient is computed for them, and none counts in the gradient's norm.
    """
    if settings.front_lr == 0:
        objective.frontend().requires_grad_(False)
    frontend = [p for p in objective.frontend().parameters() if p.requires_grad]
    frontend_ids = {id(p) for p in frontend}
    rest = [p for p in objective.parameters() if p.requires_grad and id(p) not in frontend_ids]
    groups = [{"params": rest, "factor": 1.0}, {"params": frontend, "factor": settings.front_lr}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def fit(
    objective: Objective,
    batches: Batches,
    settings: OptimSettings,
    folder: Path,
    *,
    fabric: Any,
    seed: int,
    progress: Progress,
    name: str = "training",
    hooks: Hooks | None = None,
    loggers: Sequence[str] = (),
) -> State:
    """Train `objective` for `settings.steps` updates, resuming from the last checkpoint in `folder`.

    Args:
        objective: is moved to the device and changed in place.
        batches: the audio.
        settings: optimiser and schedule.
        folder: gets `last.pt` and `log.csv`.
        fabric: from `superb_eval.pretraining.launch.launch_fabric`.
        seed: of dropout and the like.
        progress: shows the progress bar; only the first process's is used.
        name: label of the progress bar.
        hooks: callbacks between updates.
        loggers: names of further loggers (`superb_eval.runtime.loggers`).

    Raises:
        UserError: the loss is not finite, the disk is full, or the checkpoint belongs to another training; in each
            case the last checkpoint is left as it is.
        KeyboardInterrupt: a signal to stop was received; a checkpoint was written first.
    """
    trainer = _Trainer(objective, batches, settings, folder, fabric, seed, hooks or Hooks(), loggers)
    return trainer.run(progress, name)


class StopSignal:
    """While its context lasts, `received` records a signal to stop; a second signal has its usual effect."""

    def __init__(self) -> None:
        self.received = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # other threads may not set handlers
            self._handlers = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = True
        signal.signal(number, self._handlers[number])


class _Trainer:
    def __init__(
        self,
        objective: Objective,
        batches: Batches,
        settings: OptimSettings,
        folder: Path,
        fabric: Any,
        seed: int,
        hooks: Hooks,
        loggers: Sequence[str],
    ) -> None:
        self.objective, self.batches, self.settings, self.folder = objective, batches, settings, folder
        self.fabric, self.seed, self.hooks, self.path = fabric, seed, hooks, folder / LAST
        self.state, self.loggers = State(), loggers

    def run(self, progress: Progress, name: str) -> State:
        """See `fit`."""
        self.objective.to(self.fabric.device).train()
        optimizer = create_optimizer(self.objective, self.settings)
        module, optimizer = self.fabric.setup(self.objective, optimizer)
        self.state = checkpoints.read(self.path, self.objective, optimizer, self.seed)
        if self.state.step >= self.settings.steps:
            self._export()  # the run may have been killed between its last checkpoint and the export
            return self.state
        log = TrainingLog(self.folder, self.state.curve, self.fabric.is_global_zero, self.loggers)
        with progress.step(name, self.settings.steps, self.state.step) as update, StopSignal() as stop, log:
            self._train(module, optimizer, log, stop, update)
        return self.state

    def _train(self, module: nn.Module, optimizer: Any, log: TrainingLog, stop: StopSignal, update: Any) -> None:
        saved = time.monotonic()
        pending: deque[PendingStep] = deque()
        with closing(self._load_batches(self.state.step)) as batches:
            while self.state.step < self.settings.steps:
                save = time.monotonic() - saved >= 60 * self.settings.save_minutes
                pending.append(self._update(module, optimizer, batches, stop.received, save))
                self.state.step += 1
                step = self.state.step
                last = step == self.settings.steps
                wait = last or self._evaluates_at(step) or not self.settings.save_minutes
                stopped, save = self._read(pending, 0 if wait else 1, log)
                if stopped or save:
                    self._read(pending, 0, log)
                if self._evaluates_at(step):
                    log.write_metrics(step, self._evaluate(step))
                update(step, log.postfix())
                if last or stopped or save:
                    self._save(optimizer)
                    saved = time.monotonic()
                if stopped and not last:
                    raise KeyboardInterrupt

    def _update(
        self, module: nn.Module, optimizer: Any, batches: Generator[Batch, None, None], stop: bool, save: bool
    ) -> PendingStep:
        """Launch one update, without waiting for the device.

        `stop` (this process received a signal) and `save` (a checkpoint is due by the first process's clock) are
        summed over processes, so that all of them stop and save after the same update.
        """
        step, count = self.state.step + 1, self.settings.accumulate
        for group in optimizer.param_groups:
            group["lr"] = self.settings.lr * group["factor"] * lr_factor(self.settings, step)
        losses, clips = [], []
        for micro in range(count):
            batch = next(batches)
            torch.manual_seed(_derive_seed(self.seed, step, micro, self.fabric.global_rank))
            with self.fabric.no_backward_sync(module, enabled=micro < count - 1):
                terms = module(batch.to(self.fabric.device))
                seconds = sum(batch.lengths) / SAMPLE_RATE
                loss, row = reduce_terms(self.fabric, terms, (seconds, stop, save and self.fabric.is_global_zero))
                self.fabric.backward(loss / count)
            losses.append(row)
            clips.append(batch.clips)
        norm = self.fabric.clip_gradients(module, optimizer, max_norm=self.settings.clip, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad()
        weights = {name: term.weight for name, term in terms.items()}
        return PendingStep(step, weights, torch.stack(losses), norm, tuple(clips))

    def _read(self, pending: deque[PendingStep], leave: int, log: TrainingLog) -> tuple[bool, bool]:
        """Wait for all pending updates but the last `leave` and log them; return whether to stop, and whether to save.

        Raises:
            UserError: a loss or a gradient is not finite.
        """
        stop = save = False
        while len(pending) > leave:
            done = pending.popleft()
            try:
                statistics = done.read()
            except NotFiniteError as error:
                raise self._not_finite(done.step, error) from error
            self.state.seconds += statistics.seconds
            rate = self.settings.lr * lr_factor(self.settings, done.step)
            log.add(done.step, {**statistics.values, "lr": rate}, statistics.seconds)
            if done.step % self.settings.log_every == 0 or done.step == self.settings.steps:
                log.write_means(self.state.seconds)
            stop, save = stop or statistics.stop, save or statistics.save
        return stop, save

    def _load_batches(self, done: int) -> Generator[Batch, None, None]:
        """Yield this process's batches after update `done`, loaded ahead by threads."""
        count = self.settings.accumulate
        numbers = range(done * count, self.settings.steps * count)
        return prefetch(self._load_batch, numbers, LOADERS, torch.get_num_threads())

    def _load_batch(self, number: int) -> Batch:
        step = number // self.settings.accumulate + 1
        batch = self.batches.load(number, step, self.fabric.global_rank, self.fabric.world_size)
        batch = self.objective.prepare(batch)
        return batch.pin_memory() if self.fabric.device.type == "cuda" else batch

    def _evaluates_at(self, step: int) -> bool:
        last = step == self.settings.steps
        return self.hooks.evaluate is not None and (last or step % self.hooks.evaluate_every == 0)

    def _evaluate(self, step: int) -> dict[str, float]:
        """Return the metrics of the `evaluate` hook, on the first process; the others wait for it."""
        metrics: dict[str, float] = {}
        if self.fabric.is_global_zero and self.hooks.evaluate is not None:
            self.objective.eval()
            metrics = self.hooks.evaluate(step)
        self.objective.train()
        self.fabric.barrier()
        return metrics

    def _not_finite(self, step: int, error: NotFiniteError) -> UserError:
        names = ", ".join(str(self.batches.audio.clips[i].path) for i in error.clips[:4])
        saved = checkpoints.saved_step(self.path)
        state = f"the checkpoint of update {saved} remains" if saved else "no checkpoint was written before"
        return UserError(f"update {step}: {error} on {names}, ... ({state}). Lower -o optim.lr, or remove the file.")

    def _save(self, optimizer: Any) -> None:
        if self.fabric.is_global_zero:
            checkpoints.write(self.path, self.objective, optimizer, self.state, self.seed)
        self._export()

    def _export(self) -> None:
        if self.fabric.is_global_zero and self.hooks.on_checkpoint is not None:
            self.hooks.on_checkpoint(self.state.step)


def _derive_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
