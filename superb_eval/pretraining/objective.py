"""What is minimised: a module that gives parts of a loss as sums and counts, so that any split of a batch adds up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from superb_eval.pretraining.data import Batch


class Term(NamedTuple):
    """One part of a loss: `total` (a scalar) summed over `frames` frames of this process' share of a batch.

    What counts is the mean over the frames of the whole batch: the loop adds up totals and frames of all processes.
    A `weight` of 0 is for what is only shown, such as accuracy.
    """

    total: Tensor
    frames: Tensor
    weight: float = 1.0


Terms = dict[str, Term]


class Objective(nn.Module, ABC):
    """A network and what is asked of it. Its weights that need gradients, and its buffers, are what is saved."""

    skips_layers = False
    """Whether a step may leave some weights out (layer drop): several processes must then look for them."""

    @abstractmethod
    def forward(self, batch: Batch) -> Terms:
        """Return the parts of the loss; every process must give the same names, in one order."""

    def front(self) -> nn.Module | None:
        """Return the convolutions, which have a learning rate of their own (`OptimSettings.front_lr`)."""
        return None
