"""What a task is: what it reads of a row, its head, its loss, how it decodes, and how it is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from superb_eval.manifest import Corpus, Manifest, Utterance


@dataclass(frozen=True)
class Metric:
    """A figure of the table: its key in records, its heading, its unit, and which direction is better."""

    key: str
    heading: str
    higher_is_better: bool
    unit: str = "%"


@dataclass(frozen=True)
class Score:
    """A metric as a ratio of sums over utterances: `scale * sum(numerators) / sum(denominators)`.

    Kept per utterance, [utterances] each, so that an interval can resample utterances.
    """

    metric: Metric
    numerators: NDArray[np.float64]
    denominators: NDArray[np.float64]
    scale: float = 100.0

    @property
    def value(self) -> float:
        """Return the metric over all utterances."""
        return float(self.scale * self.numerators.sum() / self.denominators.sum())


class HeadSettings(BaseModel):
    """What a recipe may set of a task's head; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Task(ABC):
    """A downstream task. An instance has seen the training rows, so it knows its labels.

    `columns` are the label columns it reads from a manifest; `label_column` is the one that holds a closed set of
    classes, None where there is none. The first of `metrics` chooses the checkpoint on dev. `pooled` says that the head
    needs no more than the mean over time of each hidden state: so it is where it is linear up to its own mean.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    metrics: ClassVar[tuple[Metric, ...]]
    label_column: ClassVar[str | None]
    pooled: ClassVar[bool]
    Head: ClassVar[type[HeadSettings]]

    @abstractmethod
    def __init__(self, corpus: Corpus, head: HeadSettings) -> None:
        """Learn the labels from the training rows.

        Raises:
            UserError: dev or test rows hold labels that training never shows.
        """

    @abstractmethod
    def head(self, dim: int) -> nn.Module:
        """Return a new head for features of that width: `(features, lengths) -> output`.

        `features` is [batch, dim] where pooled (then `lengths` is None), else [batch, frames, dim].
        """

    @abstractmethod
    def target(self, utterance: Utterance) -> Any:
        """Return what the loss compares the head's output with."""

    @abstractmethod
    def loss(self, output: Tensor, targets: Sequence[Any]) -> Tensor:
        """Return the mean loss [] of a batch."""

    @abstractmethod
    def decode(self, output: Tensor) -> list[str]:
        """Return the head's answer for each utterance of a batch, as text."""

    @abstractmethod
    def truth(self, utterance: Utterance) -> str:
        """Return the right answer for an utterance, as text in the form of `decode`."""

    @abstractmethod
    def score(self, truths: Sequence[str], answers: Sequence[str]) -> list[Score]:
        """Return a score for each of `metrics`."""

    def classes(self, manifest: Manifest) -> list[str] | None:
        """Return the class of each row where sampling may balance them, or None where the task has no classes."""
        del manifest
        return None

    def chance(self, test: Manifest) -> float | None:
        """Return what a constant answer scores on the first metric, or None where the question makes no sense."""
        del test
        return None
