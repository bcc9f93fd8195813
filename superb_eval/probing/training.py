"""How a head is trained: the loop, one update, evaluation on dev, and selection of the checkpoint, from top to bottom.

One `Training` holds the probes of one fold and seed, one probe for each learning rate, which share their micro-batches.
`train` runs the loop over one `Training`, or over those of several seeds that draw the same micro-batches. A step is an
update of the optimizer, from `accumulate` micro-batches. Dev is evaluated every `eval_every` steps and after the last
one; a strictly better value saves the weights (s3prl `downstream/runner.py`). The checkpoint is written at each
evaluation, so that a killed run continues there (`resume`) and ends with the bits of an uninterrupted one. A learning
rate that diverges is left out from then on.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from downstreams.base import TrainedTask
from downstreams.batching.sampling import BatchSource, Sampler, class_weights
from downstreams.batching.targets import Targets
from superb_eval.data import audio
from superb_eval.errors import UserError
from superb_eval.features.dataset import Crop, FeatureBatch
from superb_eval.probing import probe_state
from superb_eval.probing.active_probes import ActiveProbes
from superb_eval.probing.batched_probes import MicroBatch
from superb_eval.probing.probe import Split, decode
from superb_eval.probing.probe_state import LAST, ProbeState, best_on_dev, describe_divergence, selection_metric
from superb_eval.recipe import TrainSettings
from superb_eval.runtime import allocator, out_of_memory
from superb_eval.runtime.prefetch import prefetch
from superb_eval.version import ENGINE_VERSION

CHECK_EVERY = 50
"""Steps between two checks for rates that diverged: to check at each would make a GPU wait for this process."""

Drawn = tuple[FeatureBatch, Targets]
"""The features of a micro-batch and the targets of its utterances, on the host."""

OnStep = Callable[[int, str], None]
"""Called with (steps done, postfix of the progress bar)."""

LogCurve = Callable[[ProbeState, Sequence[dict[str, float]]], None]
"""Called with a probe and all points of its curve, for loggers: step, loss, learning rate and metrics by name."""


def resume(trainings: Sequence[Training]) -> int:
    """Continue trainings from their checkpoints, where there are any; return the step that all of them have reached."""
    for training in trainings:
        training.resume()
    return min(training.step for training in trainings)


def train(trainings: Sequence[Training], readers: int, on_step: OnStep) -> None:
    """Train to the last step; leave the best weights on dev in the probes' folders.

    Several trainings must share their order of utterances; one that is behind catches up first. `readers` threads read
    or compute the features of the next batches.

    Raises:
        UserError: every learning rate diverged, or the disk is full; the last checkpoint stays.
    """
    last = trainings[0].settings.steps
    while (step := min(training.step for training in trainings)) < last:
        together = [training for training in trainings if training.step == step]
        until = min((training.step for training in trainings if training.step > step), default=last)
        _train_until(together, until, readers, on_step)


def _train_until(trainings: Sequence[Training], until: int, readers: int, on_step: OnStep) -> None:
    """The loop: draw the micro-batches of a step, update, evaluate where it is due."""
    first = trainings[0]
    with closing(first.micro_batches(readers)) as micro_batches:
        while first.step < until:
            drawn = [next(micro_batches) for _ in range(first.settings.accumulate)]
            for training in trainings:
                training.train_step(drawn)
            if first.evaluation_due:
                _evaluate(trainings)
            on_step(first.step, first.postfix())


def _evaluate(trainings: Sequence[Training]) -> None:
    """Evaluate all probes on dev, and on test where the task tracks it, in one pass over each split."""
    allocator.trim()  # not after each batch: where features are computed live, a small batch takes as long
    task, splits = trainings[0].task, trainings[0].splits
    probes = [state.probe for training in trainings for state in training.active.states]
    decoded = {
        name: iter(decode(probes, task, splits[name].features))
        for name in ("dev", *(("test",) if task.best_on_test else ()))
    }
    for training in trainings:
        active = training.active.states
        training.record({name: [next(outputs) for _ in active] for name, outputs in decoded.items()})


class Training:
    """The training of some probes on `splits["train"]`, selected on `splits["dev"]`, with its checkpoint in `folder`.

    `seed` seeds dropout and masks, and the utterances' order where the recipe has no `order_seed`. Where the task
    tracks test (`TrainedTask.best_on_test`), the best weights on test are saved too, apart.
    """

    def __init__(
        self,
        states: Sequence[ProbeState],
        task: TrainedTask,
        splits: dict[str, Split],
        settings: TrainSettings,
        *,
        seed: int,
        folder: Path,
        log: LogCurve = lambda state, points: None,
    ) -> None:
        self.states, self.task, self.splits, self.settings = states, task, splits, settings
        self.seed, self.folder, self.log = seed, folder, log
        self.order_seed = seed if settings.order_seed is None else settings.order_seed
        self.targets = Targets.of([task.target(u) for u in splits["train"].manifest])
        self.device = next(states[0].probe.parameters()).device
        self.pooled = splits["train"].features.pooled
        self.active = ActiveProbes(states, task, settings, self.pooled)
        self.code = f"engine {ENGINE_VERSION}, {task.name} {task.version}"
        self.step = 0
        self.parts = 1
        """Parts that each micro-batch is computed in; doubled whenever memory runs out."""

    def resume(self) -> None:
        """Continue from the checkpoint, where there is one."""
        self.step, optimizer_states = probe_state.resume(self.folder / LAST, self.states, self.code)
        if self.step:
            self.active.resume(optimizer_states)
            self._log()

    # One step

    def train_step(self, drawn: Sequence[Drawn]) -> None:
        """Make the next update from its micro-batches.

        Raises:
            UserError: every rate diverged, or memory runs out for a single utterance; the last checkpoint stays.
        """
        self.step += 1
        self._update(drawn)
        if self.evaluation_due or len(self.active.losses) % CHECK_EVERY == 0:
            self._drop_diverged()

    def _update(self, drawn: Sequence[Drawn]) -> None:
        """Make one update from its micro-batches.

        Where memory runs out, the update is repeated in smaller parts, whose gradients add up to the same.
        """
        try:
            losses = torch.stack([self._backward(*micro, k) for k, micro in enumerate(drawn)]).mean(dim=0)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory.calls_for_parts(error):
                raise
            self._double_parts(max(len(targets) for _, targets in drawn), error)
            out_of_memory.release(error)
        else:
            self.active.update(self.step, losses)
            return
        self.active.probes.zero_grad()
        self._update(drawn)

    def _backward(self, batch: FeatureBatch, targets: Targets, micro: int) -> Tensor:
        """Add the gradients of a micro-batch, part by part; return its mean losses [probes]."""
        size, whole = math.ceil(len(targets) / self.parts), self.task.weight(targets)
        seed, losses = _micro_batch_seed(self.seed, (self.step - 1) * self.settings.accumulate + micro), []
        for start in range(0, len(targets), size):
            of_part = targets if self.parts == 1 else targets.part(start, start + size)
            part = batch if self.parts == 1 else batch.part(start, start + size)
            share = self.task.weight(of_part) / whole
            micro_batch = MicroBatch(part.to(self.device), of_part.to(self.device), seed)
            losses.append(share * self.active.probes.backward(micro_batch, share / self.settings.accumulate))
        return torch.stack(losses).sum(dim=0)

    def _double_parts(self, largest: int, error: Exception) -> None:
        """Compute micro-batches in twice as many parts from now on, and warn of it."""
        if self.parts >= largest:
            raise UserError(
                f"step {self.step}: memory runs out for a single utterance. Free some, or cut train.crop_seconds."
            ) from error
        self.parts *= 2
        warnings.warn(
            f"step {self.step}: memory ran out; batches are computed in {self.parts} parts from here on: the "
            "same mean loss, with other draws of dropout and masks where the head has any",
            stacklevel=2,
        )

    def _drop_diverged(self) -> None:
        """Leave out the probes that diverged.

        Raises:
            UserError: none is left.
        """
        diverged = self.active.diverged()
        if not diverged:
            return
        if len(diverged) == len(self.active.states):
            raise UserError(self._divergence(diverged[0]))
        self.active.drop(diverged, self.step)
        for state in diverged:
            warnings.warn(f"{describe_divergence(state)}; the other rates are trained on", stacklevel=2)

    def _divergence(self, state: ProbeState) -> str:
        """The error where no probe is left that did not diverge."""
        ago, loss = self.active.first_skipped(state)
        step, count = self.step - ago, self.settings.accumulate
        utterances = self.splits["train"].manifest.utterances
        ids = [utterances[i].id for micro in range(count) for i in self.sampler.batch((step - 1) * count + micro)]
        saved = max(int(state.state.curve[-1]["step"]) if state.state.curve else 0 for state in self.states)
        reason = "the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
        rate = f" (lr {state.lr:g}; every rate diverged)" if len(self.states) > 1 else ""
        return (
            f"step {step}: {reason} on utterances {', '.join(ids[:4])}, ..., and no later update was finite{rate}. "
            f"Lower -o train.lr; the checkpoint of step {saved} is saved."
        )

    # Micro-batches

    @cached_property
    def sampler(self) -> BatchSource:
        """The sampler of training utterances."""
        manifest = self.splits["train"].manifest
        # Where features are pooled, no sampler needs lengths, which take seconds to read for 50 000 files.
        seconds = [] if self.pooled else [audio.seconds(u.clip) for u in manifest]
        return self.task.sampler(manifest, seconds, self.settings, self.order_seed)

    def micro_batches(self, readers: int) -> Generator[Drawn, None, None]:
        """Yield micro-batches from the next step on; `readers` threads read or compute their features ahead.

        Means over time are read faster than a thread starts.
        """
        count = self.settings.accumulate
        numbers = range(self.step * count, self.settings.steps * count)
        sampled = ((number, self.sampler.batch(number)) for number in numbers)
        if self.pooled:
            yield from map(self._draw, sampled)
        else:
            yield from prefetch(self._draw, sampled, readers)

    def _draw(self, sampled: tuple[int, Sequence[int]]) -> Drawn:
        number, indices = sampled
        batch = self.splits["train"].features.batch(indices, self._crop(number))
        return batch, self.targets.select(indices)

    def _crop(self, number: int) -> Crop | None:
        """The random crop of a micro-batch: of its features, since the upstream processes whole utterances."""
        if self.settings.crop_seconds is None:
            return None
        if self.task.whole:
            raise UserError(f"train.crop_seconds: {self.task.name} needs whole utterances; leave it out.")
        frames = round(self.settings.crop_seconds * audio.SAMPLE_RATE / self.task.setup.stride)
        generator = torch.Generator().manual_seed(_micro_batch_seed(self.order_seed, number))

        def crop(row: Tensor) -> Tensor:
            start = int(torch.randint(max(0, len(row) - frames) + 1, (), generator=generator))
            return row[start : start + frames]

        return crop

    # Evaluation and selection of the checkpoint

    @property
    def evaluation_due(self) -> bool:
        """Whether dev is evaluated after this step."""
        return self.step % self.settings.eval_every == 0 or self.step == self.settings.steps

    def record(self, decoded: Mapping[str, Sequence[list[Any]]]) -> None:
        """Append an evaluation to each probe's curve, save weights that are its best, and write the checkpoint.

        `decoded` holds what the task decodes from each probe's outputs, by split.

        Raises:
            UserError: the disk is full.
        """
        mean_losses = self.active.close_window()
        higher = selection_metric(self.task).higher_is_better, self.task.metrics[0].higher_is_better
        for k, (state, loss) in enumerate(zip(self.active.states, mean_losses, strict=True)):
            scores = {split: self._score(outputs[k], split) for split, outputs in decoded.items()}
            state.record({"step": self.step, "loss": loss, **scores}, *higher)
        probe_state.save(self.folder / LAST, self.step, self.states, self.active.optimizers, self.code)
        self._log()

    def _log(self) -> None:
        """Log the curves of all probes, with the learning rate at each point."""
        names = {
            "step": "step",
            "loss": "train/loss",
            "dev": f"dev/{selection_metric(self.task).key}",
            "test": f"monitored_test/{self.task.metrics[0].key}",
        }
        for state in self.states:
            curve = state.state.curve
            rates = [state.lr * self.settings.rate_factor(int(point["step"])) for point in curve]
            named = [{names[key]: value for key, value in point.items()} for point in curve]
            self.log(state, [{**point, "train/lr": rate} for point, rate in zip(named, rates, strict=True)])

    def _score(self, decoded: list[Any], split: str) -> float:
        """Return the first metric on a split, or on the class-balanced resample of dev that the recipe asks for.

        On dev it is the task's criterion where it has one.
        """
        manifest = self.splits[split].manifest
        if split == "dev" and self.task.criterion is not None:
            return self.task.select(manifest, decoded)
        rows = self.task.rows(manifest, decoded)
        if split == "dev" and "dev" in self.settings.balance:
            # The same draw at every evaluation, as in s3prl, where each evaluation starts from one seed.
            weights = class_weights(self.task.classes(manifest) or [""] * len(rows))
            rows = [rows[i] for i in Sampler(len(rows), len(rows), self.seed, weights).batch(0)]
        return self.task.score(rows)[0].value

    def postfix(self) -> str:
        """Return the postfix of the progress bar: the curve of the probe that is best so far."""
        if not self.active.states[0].state.curve:
            return ""
        leader = best_on_dev(self.active.states, self.task)
        state, heading = leader.state, selection_metric(self.task).heading
        latest, rate = state.curve[-1], f"lr {leader.lr:g}: " if len(self.states) > 1 else ""
        best = f"best {state.best.value:.2f} at {state.best.step}"
        return f"{rate}loss {latest['loss']:.3f}  dev {heading} {latest['dev']:.2f} ({best})"


def _micro_batch_seed(seed: int, number: int) -> int:
    """The seed of dropout, masks or crops of one micro-batch."""
    return seed * 1_000_003 + number
