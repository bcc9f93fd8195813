"""An update that is under way: what it comes to is read when the next one has been launched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class StepStatistics(NamedTuple):
    """What an update came to: the parts of its loss and the gradient's norm, the seconds heard, whether any process
    asks to stop, and whether it is time to save."""

    parts: dict[str, float]
    heard: float
    asked: bool
    due: bool


class NotFiniteError(Exception):
    """A loss or a gradient is not finite; `clips` are numbers of those that were heard."""

    def __init__(self, what: str, clips: tuple[int, ...]) -> None:
        super().__init__(what)
        self.clips = clips


@dataclass(frozen=True)
class PendingStep:
    """The update `step`.

    `losses` [micro-batches, terms + 3] are each term's mean, the seconds heard, how many processes ask to stop, and 1
    where it is time to save; `terms` are their names and weights, `norm` is the gradient's, and `clips` are those of
    each micro-batch.
    """

    step: int
    terms: dict[str, float]
    losses: Tensor
    norm: Tensor
    clips: tuple[tuple[int, ...], ...]

    def read(self) -> StepStatistics:
        """Wait for the update.

        Raises:
            NotFiniteError: its loss or its gradient is not finite.
        """
        sums: dict[str, float] = {}
        heard, asked, due = 0.0, False, False
        for row, clips in zip(self.losses.tolist(), self.clips, strict=True):
            means = dict(zip(self.terms, row[:-3], strict=True))
            loss = sum(weight * means[name] for name, weight in self.terms.items() if weight)
            if not math.isfinite(loss):
                raise NotFiniteError(f"the loss is {loss}", clips)
            heard, asked, due = heard + row[-3], asked or row[-2] > 0, due or row[-1] > 0
            for name, value in {"loss": loss, **means}.items():
                sums[name] = sums.get(name, 0.0) + value / len(self.clips)
        norm = float(self.norm)
        if not math.isfinite(norm):
            raise NotFiniteError(f"the gradient's norm is {norm}", self.clips[-1])
        return StepStatistics({**sums, "gradient": norm}, heard, asked, due)
