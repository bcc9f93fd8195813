"""What a task is: what it reads of a row, its head, its loss, how it decodes, and how it is scored.

The engine takes a task through these steps; each is one method below, with a default where most tasks agree.

    annotate                                                        as the corpus is read
    folds -> learn -> __init__ -> head, target, sampler -> loss     training, on `train`
                      -> decode -> rows -> score, or select         on `dev`, every so often: chooses the weights
                      -> tune                                       on `dev`, once: chooses what is left to choose
                      -> decode -> rows -> score                    on `test`, once

A task without training (`Search`) has neither head nor loss; every hidden layer is tried by itself instead:

    annotate -> folds -> __init__ -> search -> score                on `dev`, for each layer: chooses the layer
                      -> search -> score                            on `test`, once
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from downstreams.batching.sampling import BatchSource, Sampler, class_weights
from downstreams.metrics.scores import Metric, Score
from superb_eval.data.manifest import Corpus, Manifest, Utterance, check_labels

if TYPE_CHECKING:
    from torch import Tensor, nn


class HeadSettings(BaseModel):
    """What a recipe may set of a task's head; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Setup:
    """What a task is built from: what `Task.learn` returned, its head's settings, and samples per feature frame."""

    labels: Any
    head: Any
    stride: int = 320


class Prediction(NamedTuple):
    """One line of a predictions file: everything that the score depends on, as text."""

    id: str
    truth: str
    answer: str
    fold: int = 1


class TrainingSettings(Protocol):
    """What a sampler may ask of the recipe (`superb_eval.recipe.TrainSettings`)."""

    @property
    def batch_size(self) -> int:
        """Utterances per micro-batch."""

    @property
    def balance(self) -> tuple[Literal["train", "dev"], ...]:
        """Splits drawn so that classes come equally often."""


class Scored(ABC):
    """What all tasks have, whether they train a head or search without one.

    `columns` are the label columns it reads from a manifest; `label_column` is the one that holds a closed set of
    classes, None where there is none. The first of `metrics` chooses on dev: the checkpoint, or the layer. `pooled`
    says that the head needs no more than the mean over time of each hidden state: so it is where it is linear up to its
    own mean. `Head` is the schema of the recipe's `head`.
    `version` is raised when a change of the task, or of what it is made of, changes its figures; records keep it.
    """

    version: ClassVar[int] = 1
    name: ClassVar[str]
    title: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    label_column: ClassVar[str | None] = None
    metrics: ClassVar[tuple[Metric, ...]]
    pooled: ClassVar[bool] = False
    Head: ClassVar[type[HeadSettings]]

    @classmethod
    def needs(cls, head: Any) -> tuple[str, ...]:
        """Return the label columns that a recipe's head reads of a manifest; `head` holds its settings."""
        del head
        return cls.columns

    @classmethod
    def annotate(cls, corpus: Corpus) -> Corpus:
        """Return the corpus with the labels that the task makes of what rows say; by default, as it was read."""
        return corpus

    @classmethod
    def folds(cls, corpus: Corpus) -> list[Corpus]:
        """Return the corpora to train and test on, one after the other; their rows are scored together."""
        return [corpus]

    @classmethod
    def learn(cls, corpus: Corpus, head: Any) -> Any:
        """Return what the training rows teach; nothing where there is no training."""
        del corpus, head
        return None

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.labels: Any = setup.labels

    @abstractmethod
    def score(self, rows: Sequence[Prediction]) -> list[Score]:
        """Return a score for each of `metrics`, in their order; it needs no more than `rows`."""

    def chance(self, rows: Sequence[Prediction]) -> float | None:
        """Return what the best constant answer scores on the first metric, or None where that makes no sense."""
        del rows
        return None


class Search(Scored):
    """A task without training: each hidden layer by itself, never their weighted sum; dev chooses the layer.

    The recipe's way to search is the strict one. Others may be tried beside it, where the published figures are the
    best of several on the test set; the record keeps that figure apart, under the name historical.
    """

    @abstractmethod
    def ways(self) -> tuple[str, ...]:
        """Return the ways to search, by name: the recipe's own first."""

    @abstractmethod
    def search(self, manifest: Manifest, features: Sequence[Tensor], way: str, device: str) -> list[Prediction]:
        """Return the predictions on a split from one layer: `features` are [frames, dim], float32, by row."""

    def remarks(self, manifest: Manifest, frames: Sequence[int]) -> list[str]:
        """Return what could not be searched for in a split, for the record; `frames` counts those of each row."""
        del manifest, frames
        return []


class Task(Scored):
    """A downstream task that trains a head. An instance knows what the training rows of its fold taught, by `learn`.

    `best_on_test` asks for the test score at every evaluation too, for tasks whose published figures are the best of
    many checkpoints on the test set; the record keeps that figure apart, under the name historical. `criterion` is what
    chooses the checkpoint on dev where that isn't the first of `metrics`; then the task defines `select`. `whole` says
    that a target holds for the whole utterance alone, so that training may not cut it (`train.crop_seconds`).
    """

    best_on_test: ClassVar[bool] = False
    criterion: ClassVar[Metric | None] = None
    whole: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def learn(cls, corpus: Corpus, head: Any) -> Any:
        """Return what the training rows teach: the classes or the vocabulary, in the order of the head's outputs.

        It is kept beside the weights as JSON, so that a trained head can be used without its corpus.

        Raises:
            UserError: dev or test rows hold labels that training never shows, or rows contradict one another.
        """

    @abstractmethod
    def head(self, dim: int) -> nn.Module:
        """Return a new head for features of that width: `(features, lengths) -> output`.

        `features` is [batch, dim] where pooled (then `lengths` is None), else [batch, frames, dim] with `lengths`
        [batch], in frames. What is done in training only (SpecAugment, dropout) goes by the module's `training`.
        """

    @abstractmethod
    def target(self, utterance: Utterance) -> Any:
        """Return what the loss compares the head's output with."""

    @abstractmethod
    def loss(self, output: Any, lengths: Tensor | None, targets: Sequence[Any]) -> Tensor:
        """Return the mean loss [] of a batch; `lengths` [batch] are those of the features, in frames.

        Where the loss has weights of its own (AM-softmax), they are part of the head: so they are trained and saved.
        """

    def weight(self, targets: Sequence[Any]) -> float:
        """Return what the mean loss of a batch with these targets counts in that of a larger one: so many utterances.

        Where memory runs out, a batch is computed in parts, whose losses are added by this.
        """
        return len(targets)

    @abstractmethod
    def decode(self, output: Any, lengths: Tensor | None) -> list[Any]:
        """Return what a batch's output says of each utterance: an answer as text, or what `rows` makes one of."""

    def truth(self, utterance: Utterance) -> str:
        """Return the right answer for an utterance, in the form of a `Row`'s answer."""
        raise NotImplementedError(f"{type(self).__name__} has no answer per utterance: it overrides rows()")

    def rows(self, manifest: Manifest, decoded: Sequence[Any]) -> list[Prediction]:
        """Return the predictions on a split, given what `decode` said of each utterance, in the manifest's order."""
        return [Prediction(u.id, self.truth(u), str(answer)) for u, answer in zip(manifest, decoded, strict=True)]

    def select(self, dev: Manifest, decoded: Sequence[Any]) -> float:
        """Return the `criterion` on dev."""
        raise NotImplementedError(f"{type(self).__name__} has a criterion, so it defines select()")

    def show(self, decoded: Sequence[Any]) -> list[str]:
        """Return what people are told of each of some utterances, given what `decode` said of them."""
        return [str(answer) for answer in decoded]

    def tune(self, dev: Manifest, decoded: Sequence[Any]) -> dict[str, Any]:
        """Choose on dev what training left open (thresholds, filters), and return the choice for the record."""
        del dev, decoded
        return {}

    def adopt(self, tuned: dict[str, Any]) -> None:
        """Take over what `tune` chose in a run that is through, as its record tells."""
        del tuned

    def historical(self, test: Manifest, decoded: Sequence[Any]) -> list[Prediction]:
        """Return the predictions that the published procedure picks by looking at the test set; [] where it doesn't.

        They are scored beside the strict ones, under the name historical.
        """
        del test, decoded
        return []

    def sampler(self, train: Manifest, seconds: Sequence[float], settings: TrainingSettings, seed: int) -> BatchSource:
        """Return what deals training utterances into batches; `seconds` is how long each lasts."""
        del seconds
        classes = self.classes(train) if "train" in settings.balance else None
        return Sampler(len(train), settings.batch_size, seed, class_weights(classes) if classes else None)

    def classes(self, manifest: Manifest) -> list[str] | None:
        """Return the class of each row where sampling may balance them, or None where the task has no classes."""
        return [u.labels[self.label_column] for u in manifest] if self.label_column else None


def closed_set(corpus: Corpus, column: str) -> list[str]:
    """Return the labels of a column that training shows, sorted.

    Raises:
        UserError: dev or test rows hold others; each is named with its line.
    """
    train = corpus.splits["train"]
    for name, split in corpus.splits.items():
        if name != "train":
            check_labels(train, split, column)
    return sorted({u.labels[column] for u in train})


def accuracy(metric: Metric, rows: Sequence[Prediction]) -> Score:
    """Return the share of rows whose answer is their truth."""
    right = np.array([row.truth == row.answer for row in rows], dtype=np.float64)
    return replace(ratio(metric, right, np.ones_like(right)), share=True)


def ratio(metric: Metric, numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> Score:
    """Return a ratio of sums over rows, in percent: micro-averaged accuracies and error rates.

    Both arrays are [rows]; kept per row, so that an interval can resample them.
    """

    def statistic(chosen: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.asarray(100.0 * numerators[chosen].sum(axis=-1) / denominators[chosen].sum(axis=-1))

    return Score(metric, len(numerators), statistic)


def majority(rows: Sequence[Prediction]) -> float:
    """Return the accuracy, in percent, of always answering with the most frequent truth."""
    _, counts = np.unique([row.truth for row in rows], return_counts=True)
    return float(100.0 * counts.max() / len(rows))
