"""The loss of an update: terms as sums and frame counts, which add up over any split of a batch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from superb_eval.pretraining.batches import Batch


class Term(NamedTuple):
    """One term of a loss: `total` (a scalar) summed over `frames` frames of this process's share of a batch.

    Its value is the mean over the frames of the whole batch: the trainer adds up totals and frames of all processes.
    A `weight` of 0 is for what is only logged, such as accuracy.
    """

    total: Tensor
    frames: Tensor
    weight: float = 1.0


Terms = dict[str, Term]


class Objective(nn.Module, ABC):
    """A network with its loss. Checkpoints hold its weights that need gradients, and its buffers."""

    @abstractmethod
    def prepare(self, batch: Batch) -> Batch:
        """Return a batch on the host with the `inputs` that `forward` needs; threads that load batches call it."""

    @abstractmethod
    def forward(self, batch: Batch) -> Terms:
        """Return the terms of the loss; every process must give the same names, in one order.

        It runs no operation per clip, and waits for nothing on the device.
        """

    @abstractmethod
    def frontend(self) -> nn.Module:
        """Return the convolutions, which have a learning rate of their own (`OptimSettings.front_lr`)."""


def reduce_terms(fabric: Any, terms: Terms, extra: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return the loss to backpropagate; and each term's mean over all processes' frames, then the sums of `extra`.

    Gradients are averaged over processes, so each one's share of a sum is multiplied by the number of processes.
    """
    world = fabric.world_size
    device = next(iter(terms.values())).total.device
    own = [*(t.total.detach().float() for t in terms.values()), *(t.frames.float() for t in terms.values())]
    # Filled in on the device: a copy of values from the host would wait for all that was launched before.
    own += [torch.full((), float(value), device=device) for value in extra]
    flat = torch.stack(own)
    if world > 1:
        flat = fabric.all_reduce(flat, reduce_op="sum")
    totals, counts, sums = flat[: len(terms)], flat[len(terms) : -len(extra)].clamp(min=1), flat[-len(extra) :]
    loss = sum(
        (world * t.weight * t.total / count for t, count in zip(terms.values(), counts, strict=True) if t.weight),
        start=torch.zeros((), device=device),
    )
    return loss, torch.cat([totals / counts, sums])


class StepStatistics(NamedTuple):
    """Results of an update: its loss, terms and gradient norm by name, the seconds of its audio, whether any process
    received a signal to stop, and whether a checkpoint is due."""

    values: dict[str, float]
    seconds: float
    stop: bool
    save: bool


class NotFiniteError(Exception):
    """A loss or a gradient is not finite; `clips` are indices of the clips in its batch."""

    def __init__(self, message: str, clips: tuple[int, ...]) -> None:
        super().__init__(message)
        self.clips = clips


@dataclass(frozen=True)
class PendingStep:
    """The update `step`, launched on the device; its results are read once the next one has been launched.

    `losses` [micro-batches, terms + 3] are each term's mean, the seconds of audio, how many processes received a
    signal to stop, and 1 where a checkpoint is due. `weights` are the terms' weights by name, `norm` is the gradient's,
    and `clips` are those of each micro-batch.
    """

    step: int
    weights: dict[str, float]
    losses: Tensor
    norm: Tensor
    clips: tuple[tuple[int, ...], ...]

    def read(self) -> StepStatistics:
        """Wait for the update and return its results.

        Raises:
            NotFiniteError: its loss or its gradient is not finite.
        """
        sums: dict[str, float] = {}
        seconds, stop, save = 0.0, False, False
        for row, clips in zip(self.losses.tolist(), self.clips, strict=True):
            means = dict(zip(self.weights, row[:-3], strict=True))
            loss = sum(weight * means[name] for name, weight in self.weights.items() if weight)
            if not math.isfinite(loss):
                raise NotFiniteError(f"the loss is {loss}", clips)
            seconds, stop, save = seconds + row[-3], stop or row[-2] > 0, save or row[-1] > 0
            for name, value in {"loss": loss, **means}.items():
                sums[name] = sums.get(name, 0.0) + value / len(self.clips)
        norm = float(self.norm)
        if not math.isfinite(norm):
            raise NotFiniteError(f"the gradient's norm is {norm}", self.clips[-1])
        return StepStatistics({**sums, "gradient": norm}, seconds, stop, save)
