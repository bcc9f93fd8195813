"""How large a task's official corpus is, so that the cost of the protocol can be estimated without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OfficialCorpus:
    """Published sizes (counts: SUPERB's lists; lengths: about) and what a head is built from in such an estimate.

    `utterances` are those of train, dev and test, of one fold where a task is cross-validated; `distinct` then counts
    those of all folds together. `seconds` is their mean length. `labels` is what `TrainedTask.learn` would return,
    `target` makes a target for an utterance of so many frames.
    """

    utterances: tuple[int, int, int]
    seconds: float
    labels: Any = None
    target: Callable[[int], Any] = lambda frames: 0
    folds: int = 1
    distinct: int | None = None

    @property
    def audio_seconds(self) -> float:
        """Return the length of all splits together, in seconds."""
        return (self.distinct or sum(self.utterances)) * self.seconds


def numbered(count: int) -> list[str]:
    """Return as many class names: "0", "1", ..."""
    return [str(k) for k in range(count)]
