"""The training of the probes of one fold and seed, one for each learning rate, side by side on the same micro-batches.

A step is an update of the optimiser. What is random in a head is seeded by run and micro-batch. The loop is in
`superb_eval.probing.lockstep`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from downstreams.base import Task
from downstreams.batching.sampling import BatchSource, Sampler, class_weights
from superb_eval.data import audio
from superb_eval.errors import UserError
from superb_eval.features.dataset import Batch, Crop
from superb_eval.features.prefetch import in_order
from superb_eval.probing import probe_state
from superb_eval.probing.batched_probes import MicroBatch, assemble
from superb_eval.probing.probe import Split, to_device
from superb_eval.probing.probe_state import LAST, ProbeState, best, chooses
from superb_eval.recipe import TrainSettings
from superb_eval.runtime import out_of_memory

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}

CHECK_EVERY = 50
"""Steps between two looks at the losses: to look at each would make a GPU wait for this process."""

Drawn = tuple[Sequence[int], Batch]
"""A micro-batch: the places of its utterances in the training split, and their features."""


class Training:
    """The training of some probes: on `splits["train"]`, choosing on `splits["dev"]`, keeping its state in `folder`.

    `seed` is that of what is random in heads, and of the utterances' order where the recipe names no other.

    Where the task asks for it (`Task.best_on_test`), the weights that score best on test are kept too, apart.
    """

    def __init__(
        self,
        team: Sequence[ProbeState],
        task: Task,
        splits: dict[str, Split],
        settings: TrainSettings,
        *,
        seed: int,
        folder: Path,
    ) -> None:
        self.members, self.task, self.splits, self.settings = team, task, splits, settings
        self.seed, self.folder = seed, folder
        self.order_seed = seed if settings.order_seed is None else settings.order_seed
        self.targets = [task.target(u) for u in splits["train"].manifest]
        self.device = next(team[0].probe.parameters()).device
        self.pooled = splits["train"].features.pooled
        self.team = assemble([member.probe for member in team], task, self.pooled, settings.precision)
        groups = [{"params": self.team.parameters(k), "lr": member.lr} for k, member in enumerate(team)]
        self.optimizer: torch.optim.Optimizer = OPTIMIZERS[settings.optimizer](groups, fused=True)
        self.step = 0
        self.losses: list[Tensor] = []
        """Of the steps since the last evaluation, [probes] each."""
        self.parts = 1
        """Into which each micro-batch is cut, since memory ran out."""

    def resume(self) -> None:
        """Take up what was interrupted, where there is something."""
        self.step = probe_state.resume(self.folder / LAST, self.members, self.optimizer)

    def take(self, drawn: Sequence[Drawn]) -> None:
        """Make the next update from its micro-batches.

        Raises:
            UserError: a loss is no longer finite, or memory runs out for a single utterance; what was saved is kept.
        """
        self.step += 1
        self.losses.append(self._update(drawn))
        if self.due or len(self.losses) % CHECK_EVERY == 0:
            self._check()

    @property
    def due(self) -> bool:
        """Whether dev is to be evaluated after this step."""
        return self.step % self.settings.eval_every == 0 or self.step == self.settings.steps

    def note(self, answers: Mapping[str, Sequence[list[Any]]]) -> None:
        """Put an evaluation on each probe's curve, keep the weights that are its best so far, and save the state.

        `answers` are what each probe decodes, by split: dev, and test where the task asks for it.

        Raises:
            UserError: the disk is full.
        """
        means = torch.stack(self.losses).mean(dim=0).tolist()
        self.losses.clear()
        higher = chooses(self.task).higher_is_better, self.task.metrics[0].higher_is_better
        for k, (member, loss) in enumerate(zip(self.members, means, strict=True)):
            scores = {split: self._score(found[k], split) for split, found in answers.items()}
            member.note({"step": self.step, "loss": loss, **scores}, *higher)
        probe_state.save(self.folder / LAST, self.members, self.optimizer)

    @cached_property
    def sampler(self) -> BatchSource:
        """What deals the training utterances."""
        train = self.splits["train"].manifest
        # Tasks on means over time draw without a look at lengths; for 50 000 files that look takes seconds.
        seconds = [] if self.pooled else [audio.seconds(u.clip) for u in train]
        return self.task.sampler(train, seconds, self.settings, self.order_seed)

    def drawn(self, readers: int) -> Generator[Drawn, None, None]:
        """Yield micro-batches from the next step on; `readers` threads fetch or compute their features ahead.

        Means over time are at hand sooner than a thread is.
        """
        count = self.settings.accumulate
        numbers = range(self.step * count, self.settings.steps * count)
        dealt = ((number, self.sampler.batch(number)) for number in numbers)
        if self.pooled:
            yield from map(self._draw, dealt)
        else:
            yield from in_order(self._draw, dealt, readers)

    def _draw(self, dealt: tuple[int, Sequence[int]]) -> Drawn:
        number, indices = dealt
        return indices, self.splits["train"].features.batch(indices, self._crop(number))

    def _crop(self, number: int) -> Crop | None:
        """The random cut of a micro-batch: of its features, since the upstream has heard utterances whole."""
        if self.settings.crop_seconds is None:
            return None
        if self.task.whole:
            raise UserError(f"train.crop_seconds: {self.task.name} needs whole utterances; leave it out.")
        frames = round(self.settings.crop_seconds * audio.SAMPLE_RATE / self.task.setup.stride)
        generator = torch.Generator().manual_seed(_seed(self.order_seed, number))

        def cut(row: Tensor) -> Tensor:
            start = int(torch.randint(max(0, len(row) - frames) + 1, (), generator=generator))
            return row[start : start + frames]

        return cut

    def _update(self, drawn: Sequence[Drawn]) -> Tensor:
        """Make one update from its micro-batches; return the probes' mean losses [probes].

        Where memory runs out, all of it is done anew in smaller parts, whose gradients add up to the same.
        """
        try:
            losses = torch.stack([self._backward(*micro, k) for k, micro in enumerate(drawn)]).mean(dim=0)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory.is_out_of_memory(error):
                raise
            self._halve(max(len(indices) for indices, _ in drawn), error)
            out_of_memory.release(error)
        else:
            self.team.clip(self.settings.clip)
            self.optimizer.step()
            self.team.clear()
            return losses
        self.team.clear()
        return self._update(drawn)

    def _backward(self, indices: Sequence[int], batch: Batch, micro: int) -> Tensor:
        """Add a micro-batch's gradients, part by part; return its mean losses [probes]."""
        size = math.ceil(len(indices) / self.parts)
        whole = self.task.weight([self.targets[i] for i in indices])
        seed, parts = _seed(self.seed, (self.step - 1) * self.settings.accumulate + micro), []
        for start in range(0, len(indices), size):
            part = to_device(batch if self.parts == 1 else batch.part(start, start + size), self.device)
            targets = [self.targets[i] for i in indices[start : start + size]]
            share = self.task.weight(targets) / whole
            parts.append(share * self.team.backward(MicroBatch(part, targets, seed), share / self.settings.accumulate))
        return torch.stack(parts).sum(dim=0)

    def _halve(self, largest: int, error: Exception) -> None:
        """Let micro-batches be computed in twice as many parts from now on, and say so."""
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

    def _score(self, found: list[Any], split: str) -> float:
        """Return the first metric of a split's answers, or of the class-balanced resample that the recipe asks for.

        On dev it is the task's criterion where it has one.
        """
        manifest = self.splits[split].manifest
        if split == "dev" and self.task.criterion is not None:
            return self.task.select(manifest, found)
        rows = self.task.rows(manifest, found)
        if split == "dev" and "dev" in self.settings.balance:
            # The same draw at every evaluation, as in s3prl, where each evaluation starts from one seed.
            weights = class_weights(self.task.classes(manifest) or [""] * len(rows))
            rows = [rows[i] for i in Sampler(len(rows), len(rows), self.seed, weights).batch(0)]
        return self.task.score(rows)[0].value

    def beside(self) -> str:
        """Return what stands beside the progress bar: how the member fares that is best so far."""
        if not self.members[0].state.curve:
            return ""
        member = best(self.members, self.task)
        state, heading = member.state, chooses(self.task).heading
        last, rate = state.curve[-1], f"lr {member.lr:g}: " if len(self.members) > 1 else ""
        top = f"best {state.best.value:.2f} at {state.best.step}"
        return f"{rate}loss {last['loss']:.3f}  dev {heading} {last['dev']:.2f} ({top})"

    def _check(self) -> None:
        """Look at the losses since the last look.

        Raises:
            UserError: one isn't finite.
        """
        recent = torch.stack(self.losses[-CHECK_EVERY:]).cpu()
        if bool(recent.isfinite().all()):
            return
        row, k = (int(place) for place in (~recent.isfinite()).nonzero()[0])
        step, count = self.step - len(recent) + 1 + row, self.settings.accumulate
        train = self.splits["train"].manifest.utterances
        ids = [train[i].id for micro in range(count) for i in self.sampler.batch((step - 1) * count + micro)]
        curve = self.members[0].state.curve
        saved = int(curve[-1]["step"]) if curve else 0
        rate = f" (lr {self.members[k].lr:g})" if len(self.members) > 1 else ""
        raise UserError(
            f"step {step}: the loss is {float(recent[row, k])} on utterances {', '.join(ids[:4])}, ...{rate} "
            f"Lower -o train.lr; the state of step {saved} is kept."
        )


def _seed(seed: int, number: int) -> int:
    """The seed of what is random in a micro-batch."""
    return seed * 1_000_003 + number
