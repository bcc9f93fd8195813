"""Which utterances a training step uses: a function of seed and step alone, so that a resumed run uses the same."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


class BatchSource(Protocol):
    """Draws utterances for micro-batches."""

    def batch(self, number: int) -> list[int]:
        """Return the indices of micro-batch `number` (from 0); in any order."""


def class_weights(classes: Sequence[str]) -> Tensor:
    """Return weights [utterances] that draw every class equally often (s3prl: number of rows / count of the class)."""
    counts = Counter(classes)
    return torch.tensor([len(classes) / counts[c] for c in classes], dtype=torch.float64)


def batches_per_epoch(size: int, batch_size: int, drop_last: bool = False) -> int:
    """Return how many batches an epoch over `size` utterances has.

    A corpus smaller than a batch still trains, on all of it.
    """
    return max(1, size // batch_size) if drop_last else math.ceil(size / batch_size)


class Sampler:
    """Draws utterances for batches, epoch after epoch; `drop_last` leaves the smaller last batch of an epoch out.

    Without weights an epoch is a permutation; with them it is as many draws with replacement.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, weights: Tensor | None = None, drop_last: bool = False
    ) -> None:
        self.size, self.seed, self.weights = size, seed, weights
        self.batch_size = batch_size
        self.per_epoch = batches_per_epoch(size, batch_size, drop_last)
        self._epoch, self._order = -1, torch.empty(0)

    def batch(self, number: int) -> list[int]:
        """Return the indices of micro-batch `number` (from 0)."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._draw(epoch)
        chosen: list[int] = self._order[place * self.batch_size : (place + 1) * self.batch_size].tolist()
        return chosen

    def _draw(self, epoch: int) -> Tensor:
        # An odd multiplier keeps (seed, epoch) pairs apart without the overlap that seed + epoch would have.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        if self.weights is None:
            return torch.randperm(self.size, generator=generator)
        return torch.multinomial(self.weights, self.size, replacement=True, generator=generator)
