"""What losses compare outputs with: the targets of a split as tensors, made once, and those of a batch out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from superb_eval.data.padding import copy_to
from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """The targets of some utterances, from what `TrainedTask.target` returns for each.

    `values` is [batch] where a target is one number, else [batch, longest, ...], padded with zeros. `lengths` [batch]
    is how long each is (1 for one number); it stays on the host, so that reading it waits for no device.
    """

    values: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, targets: Sequence[Any]) -> Targets:
        """Return the targets of utterances: numbers, sequences of numbers, or tensors [length, ...]."""
        rows = [t if isinstance(t, torch.Tensor) else torch.tensor(t, dtype=torch.long) for t in targets]
        if rows[0].dim() == 0:
            return cls(torch.stack(rows), torch.ones(len(rows), dtype=torch.long))
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return cls(padded, torch.tensor([len(row) for row in rows]))

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, indices: Sequence[int]) -> Targets:
        """Return the targets of the utterances at `indices`, padded no further than they need."""
        chosen = torch.tensor(indices)
        lengths = self.lengths[chosen]
        values = self.values if self.values.dim() == 1 else self.values[:, : int(lengths.max())]
        return Targets(values[chosen], lengths)

    def part(self, first: int, last: int) -> Targets:
        """Return the targets from `first` up to `last`."""
        return self.select(range(first, min(last, len(self))))

    def to(self, device: torch.device) -> Targets:
        """Return the targets with their values on a device."""
        return Targets(copy_to(self.values, device), self.lengths)
