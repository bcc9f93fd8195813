"""The loop that pre-training and distillation share: updates, log, checkpoints, and going on from them.

Whatever is random in an update is seeded by run, update and process, so that no random state has to be kept: a
training that was killed ends with the bits of an unbroken one. A batch is shared by all processes, and each part of
the loss is a mean over all of its frames: the loss curve doesn't depend on how many processes there are.

What an update came to is read from the device when the next one is under way, so that it never waits for the processor;
before anything is saved or looked at, all updates have been read.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from superb_eval.data.audio import SAMPLE_RATE
from superb_eval.errors import UserError
from superb_eval.pretraining import checkpoints, schedule
from superb_eval.pretraining.checkpoints import State
from superb_eval.pretraining.data import Batch, Batches
from superb_eval.pretraining.objective import Objective, Terms
from superb_eval.pretraining.pending_step import NotFiniteError, PendingStep
from superb_eval.pretraining.recipe import OptimSettings
from superb_eval.pretraining.stopping import Stop
from superb_eval.pretraining.training_log import TrainingLog
from superb_eval.runtime.progress import Progress

LAST = "last.pt"
"""In a training's folder: the state to go on from."""

READERS = 4
"""Threads that read batches ahead."""

Watch = Callable[[int], dict[str, float]]
"""Called with the update after some updates, on the first process, with the network in evaluation mode; what it
returns goes to the log."""

Saved = Callable[[int], None]
"""Called after each checkpoint, on the first process: the place to export what has been trained so far."""


@dataclass
class Hooks:
    """What happens beside the updates."""

    watch: Watch | None = None
    watch_every: int = 0
    saved: Saved | None = None


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
    """Train `objective` for `settings.steps` updates, going on from the last checkpoint in `folder`.

    Args:
        objective: is moved to the device and changed in place.
        batches: the audio.
        settings: optimiser and schedule.
        folder: gets `last.pt` and `log.csv`.
        fabric: from `superb_eval.pretraining.devices.fabric`.
        seed: of dropout and the like.
        progress: shows the bar; only the first process' is used.
        name: stands before the bar.
        hooks: what happens beside the updates.
        loggers: boards that show the log too (`superb_eval.pretraining.loggers`).

    Raises:
        UserError: the loss is no longer finite, the disk is full, or the checkpoint is another training's; in each
            case what was saved last is kept.
        KeyboardInterrupt: somebody asked to stop; the state was saved first.
    """
    return _Fit(objective, batches, settings, folder, fabric, seed, hooks or Hooks(), loggers).run(progress, name)


class _Fit:
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
        self.objective.train()
        optimizer = schedule.optimizer(self.objective, self.settings)
        module, optimizer = self.fabric.setup(self.objective, optimizer)
        self.state = checkpoints.read(self.path, self.objective, optimizer, self.seed)
        if self.state.step >= self.settings.steps:
            self._hand_on()  # a killed run may have saved its last state and no more
            return self.state
        log = TrainingLog(self.folder, self.state.curve, self.fabric.is_global_zero, self.loggers)
        with progress.step(name, self.settings.steps) as update, Stop() as stop, log:
            self._train(module, optimizer, log, stop, update)
        return self.state

    def _train(self, module: nn.Module, optimizer: Any, log: TrainingLog, stop: Stop, update: Any) -> None:
        saved = time.monotonic()
        batches = self._prefetched(self.state.step)
        under_way: deque[PendingStep] = deque()
        while self.state.step < self.settings.steps:
            due = time.monotonic() - saved >= 60 * self.settings.save_minutes
            under_way.append(self._update(module, optimizer, batches, stop.asked, due))
            self.state.step += 1
            step = self.state.step
            last = step == self.settings.steps
            waits = last or self._watches(step, last) or not self.settings.save_minutes
            stopped, due = self._read(under_way, 0 if waits else 1, log)
            if stopped or due:
                self._read(under_way, 0, log)
            if self._watches(step, last):
                log.note(step, self._watched(step))
            update(step, log.postfix())
            if last or stopped or due:
                self._save(optimizer)
                saved = time.monotonic()
            if stopped and not last:
                raise KeyboardInterrupt

    def _update(
        self, module: nn.Module, optimizer: Any, batches: Iterator[Batch], asked: bool, due: bool
    ) -> PendingStep:
        """Launch one update; nothing here waits for the device.

        That somebody `asked` to stop, and that it is time to save by the first process' clock, all processes hear from
        the sums over processes, so that all of them stop and save after the same update.
        """
        step, count = self.state.step + 1, self.settings.accumulate
        for group in optimizer.param_groups:
            group["lr"] = self.settings.lr * group["factor"] * schedule.rate(self.settings, step)
        losses, clips = [], []
        for micro in range(count):
            batch = next(batches)
            torch.manual_seed(_seed(self.seed, step, micro, self.fabric.global_rank))
            with self.fabric.no_backward_sync(module, enabled=micro < count - 1):
                terms = module(batch.on(self.fabric.device))
                heard = float(batch.lengths.sum()) / SAMPLE_RATE
                loss, flat = self._reduced(terms, (heard, asked, due and self.fabric.is_global_zero))
                self.fabric.backward(loss / count)
            losses.append(flat)
            clips.append(batch.clips)
        norm = self.fabric.clip_gradients(module, optimizer, max_norm=self.settings.clip, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad()
        weights = {name: term.weight for name, term in terms.items()}
        return PendingStep(step, weights, torch.stack(losses), norm, tuple(clips))

    def _read(self, under_way: deque[PendingStep], keep: int, log: TrainingLog) -> tuple[bool, bool]:
        """Wait for all updates but the last `keep`, and log them; return whether to stop, and whether to save.

        Raises:
            UserError: a loss or a gradient is not finite.
        """
        stopped = due = False
        while len(under_way) > keep:
            done = under_way.popleft()
            try:
                told = done.read()
            except NotFiniteError as error:
                raise self._diverged(done.step, error) from error
            self.state.seconds += told.heard
            rate = self.settings.lr * schedule.rate(self.settings, done.step)
            log.add(done.step, {**told.parts, "lr": rate}, told.heard)
            if done.step % self.settings.log_every == 0 or done.step == self.settings.steps:
                log.line(self.state.seconds)
            stopped, due = stopped or told.asked, due or told.due
        return stopped, due

    def _reduced(self, terms: Terms, others: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        """Return the loss to go back from; and its parts as means over all processes' frames, then sums of `others`.

        Gradients are averaged over processes, so each one's share of a sum is counted as often as there are processes.
        """
        world = self.fabric.world_size
        device = next(iter(terms.values())).total.device
        mine = [*(t.total.detach().float() for t in terms.values()), *(t.frames.float() for t in terms.values())]
        flat = torch.cat([torch.stack(mine), torch.tensor([float(value) for value in others], device=device)])
        if world > 1:
            flat = self.fabric.all_reduce(flat, reduce_op="sum")
        totals, counts, rest = flat[: len(terms)], flat[len(terms) : -len(others)].clamp(min=1), flat[-len(others) :]
        loss = sum(
            (world * t.weight * t.total / count for t, count in zip(terms.values(), counts, strict=True) if t.weight),
            start=torch.zeros((), device=device),
        )
        return loss, torch.cat([totals / counts, rest])

    def _prefetched(self, done: int) -> Iterator[Batch]:
        """Yield this process' batches from update `done` + 1 on, read ahead by threads."""
        count, rank, world = self.settings.accumulate, self.fabric.global_rank, self.fabric.world_size
        numbers = iter(range(done * count, self.settings.steps * count))
        with ThreadPoolExecutor(READERS) as pool:
            waiting: deque[Future[Batch]] = deque()
            while True:
                while len(waiting) <= READERS and (number := next(numbers, None)) is not None:
                    waiting.append(pool.submit(self._batch, number, number // count + 1, rank, world))
                if not waiting:
                    return
                yield waiting.popleft().result()

    def _batch(self, *which: int) -> Batch:
        batch = self.batches.at(*which)
        return batch.pinned() if self.fabric.device.type == "cuda" else batch

    def _watches(self, step: int, last: bool) -> bool:
        return self.hooks.watch is not None and (last or step % self.hooks.watch_every == 0)

    def _watched(self, step: int) -> dict[str, float]:
        """Return what the watch says, on the first process; the others wait for it."""
        found: dict[str, float] = {}
        if self.fabric.is_global_zero and self.hooks.watch is not None:
            self.objective.eval()
            found = self.hooks.watch(step)
        self.objective.train()
        self.fabric.barrier()
        return found

    def _diverged(self, step: int, error: NotFiniteError) -> UserError:
        names = ", ".join(str(self.batches.audio.clips[i].path) for i in error.clips[:4])
        saved = checkpoints.step(self.path)
        kept = f"the state of update {saved} is kept" if saved else "nothing was saved before"
        return UserError(f"update {step}: {error} on {names}, ... ({kept}). Lower -o optim.lr, or drop the file.")

    def _save(self, optimizer: Any) -> None:
        if self.fabric.is_global_zero:
            checkpoints.write(self.path, self.objective, optimizer, self.state, self.seed)
        self._hand_on()

    def _hand_on(self) -> None:
        if self.fabric.is_global_zero and self.hooks.saved is not None:
            self.hooks.saved(self.state.step)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
