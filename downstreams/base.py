"""What a task is: what it reads from a row, its head, its loss, how it decodes, and how it is scored.

The engine calls these methods in this order; they have a default where most tasks agree.

    annotate                                                        as the corpus is read
    folds -> learn -> __init__ -> head, target, sampler -> loss     training, on `train`
                      -> decode -> rows -> score, or select         on `dev`, every so often: selects the checkpoint
                      -> tune                                       on `dev`, once: tunes what training leaves open
                      -> decode -> rows -> score                    on `test`, once

A task without training (`Search`) has neither head nor loss; every hidden layer is searched by itself instead:

    annotate -> folds -> __init__ -> search -> score                on `dev`, for each layer: selects the layer
                      -> search -> score                            on `test`, once
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from downstreams.batching.sampling import BatchSource, Sampler, class_weights
from downstreams.batching.targets import Targets
from downstreams.metrics.scores import Metric, Score, nest, ratio
from downstreams.task_types.official_corpus import OfficialCorpus
from superb_eval.data import limits
from superb_eval.data.manifest import NO_SPEAKER, Corpus, Manifest, Utterance, check_labels
from superb_eval.data.recipe_sections import CorpusSettings, Section
from superb_eval.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


class HeadSettings(Section):
    """What a recipe may set of a task's head; unknown keys are refused."""


@dataclass(frozen=True)
class Setup:
    """What a task is built from: what its `learn` returned, its head's settings, and samples per feature frame."""

    labels: Any
    head: Any
    stride: int = 320


class Prediction(NamedTuple):
    """One row of a predictions file: everything that the score and its interval depend on, as text.

    `speaker` is that of the utterance, of a trial `ENROLL<tab>TEST`; empty where none is known, or where units are not
    of one speaker.
    """

    id: str
    truth: str
    answer: str
    fold: int = 1
    speaker: str = ""


Scores = Mapping[str, "float | Mapping[str, float]"]
"""Scores of an answer by name: of a classifier, the probabilities of the most probable classes, the best first."""


class TrainingSettings(Protocol):
    """What a sampler reads from the recipe (`superb_eval.recipe.TrainSettings`)."""

    @property
    def batch_size(self) -> int:
        """Utterances per micro-batch."""

    @property
    def balance(self) -> tuple[Literal["train", "dev"], ...]:
        """Splits drawn so that classes come equally often."""


class BaseTask(ABC):
    """What all tasks have, whether they train a head or search without one.

    `columns` are the label columns that it reads from a manifest, `column_aliases` other names under which manifests
    may have them; `label_column` is the one with a closed set of
    classes, None where there is none. The first of `metrics` selects on dev: the checkpoint, or the layer. `pooled`
    states that the head needs no more than the mean over time of each hidden state, which holds where it is linear up
    to its own mean. `Head` and `CorpusSchema` are the schemas of the recipe's sections `head` and `corpus`. `version`
    is raised when a change of the task, or of its parts, changes its figures; records store it.

    `LabelForm` is the type of what `learn` returns, by which labels that somebody stored are checked.

    What tables and reports need: `unit` is what a test set consists of and an interval resamples. `trials` states that
    a row of the predictions is about two clips, `ENROLL TEST`, and its answer is a score; `truth_names` then words its
    truths. `hub_task` is the Hugging Face hub's name for the task, `paper_position` its place in the SUPERB
    paper's tables (None: not a task of SUPERB), `official_corpus` the size of its official corpus.
    """

    version: ClassVar[int] = 1
    LabelForm: ClassVar[Any] = Any
    name: ClassVar[str]
    title: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    column_aliases: ClassVar[Mapping[str, str]] = {}
    label_column: ClassVar[str | None] = None
    metrics: ClassVar[tuple[Metric, ...]]
    pooled: ClassVar[bool] = False
    Head: ClassVar[type[HeadSettings]]
    CorpusSchema: ClassVar[type[CorpusSettings]] = CorpusSettings
    unit: ClassVar[str] = "utterances"
    trials: ClassVar[bool] = False
    truth_names: ClassVar[Mapping[str, str]] = {}
    hub_task: ClassVar[str] = "audio-classification"
    paper_position: ClassVar[int | None] = None
    official_corpus: ClassVar[OfficialCorpus | None] = None

    @classmethod
    def needs(cls, head: Any) -> tuple[str, ...]:
        """Return the label columns that a recipe's head settings ask a manifest for."""
        del head
        return cls.columns

    @classmethod
    def column_advice(cls, present: Sequence[str]) -> str:
        """Return what may help where a manifest lacks the task's columns and has the label columns `present`."""
        del present
        return ""

    @classmethod
    def annotate(cls, corpus: Corpus) -> Corpus:
        """Return the corpus with the labels that the task derives from its rows; by default, as it was read."""
        return corpus

    @classmethod
    def label_set(cls, utterance: Utterance, head: Any) -> frozenset[str]:
        """Return the labels that the training rows must have for the utterance to be scored."""
        del head
        return frozenset([utterance.labels[cls.label_column]]) if cls.label_column else frozenset()

    @classmethod
    def limited(cls, corpus: Corpus, count: int, head: Any) -> Corpus:
        """Return at most `count` utterances of each split, for a try; more only where the task needs them.

        Raises:
            UserError: so few can't be trained on.
        """
        return limits.by_labels(corpus, count, lambda utterance: cls.label_set(utterance, head))

    @classmethod
    def folds(cls, corpus: Corpus) -> list[Corpus]:
        """Return the corpora to train and test on, one after the other; their rows are scored together."""
        return [corpus]

    @classmethod
    def learn(cls, corpus: Corpus, head: Any) -> Any:
        """Return what the training rows define (see `TrainedTask.learn`); nothing where there is no training."""
        del corpus, head
        return None

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.labels: Any = setup.labels

    def remarks(self, manifest: Manifest, frames: Sequence[int]) -> list[str]:
        """Return which rows of a split can't be trained on, searched for or recognised, for the record.

        `frames` counts the feature frames of each row.
        """
        del manifest, frames
        return []

    @abstractmethod
    def score(self, rows: Sequence[Prediction]) -> list[Score]:
        """Return a score for each of `metrics`, in their order, from the rows of a predictions file alone."""

    def chance(self, rows: Sequence[Prediction]) -> float | None:
        """Return what the best constant answer scores on the first metric, or None where that is not defined."""
        del rows
        return None


class SearchTask(BaseTask):
    """A task without training: each hidden layer by itself, never their weighted sum; dev selects the layer.

    The recipe's search method gives the strict figure (nothing was chosen on test data). Others may be tried too where
    the published figures are the best of several on the test set: the record stores that figure apart, as historical.
    """

    @abstractmethod
    def ways(self) -> tuple[str, ...]:
        """Return the search methods by name: the recipe's own first."""

    @abstractmethod
    def search(self, manifest: Manifest, features: Sequence[Tensor], way: str, device: str) -> list[Prediction]:
        """Return the predictions on a split from one layer: `features` are [frames, dim] by row, as they are stored."""


class TrainedTask(BaseTask):
    """A task that trains a head: an `UtteranceTask` or a `FrameTask`. An instance holds what `learn` returned.

    `best_on_test` asks for the test score at every evaluation too, for tasks whose published figures are the best of
    many checkpoints on the test set; the record stores that figure apart, as historical. `criterion` is what selects
    the checkpoint on dev where that isn't the first of `metrics`; then the task defines `select`. `whole` states that a
    target holds for the whole utterance alone, so that training may not crop it (`train.crop_seconds`). `drop_last`
    leaves the smaller last batch of an epoch out.
    """

    best_on_test: ClassVar[bool] = False
    criterion: ClassVar[Metric | None] = None
    whole: ClassVar[bool] = False
    drop_last: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def learn(cls, corpus: Corpus, head: Any) -> Any:
        """Return what the training rows define: the classes or the vocabulary, in the order of the head's outputs.

        It is saved with the weights as JSON, so that a trained head can be used without its corpus.

        Raises:
            UserError: dev or test rows have labels that train lacks, or rows contradict one another.
        """

    @abstractmethod
    def head(self, dim: int) -> nn.Module:
        """Return a new head for features of that width: `(features, lengths) -> output`.

        `features` is [batch, dim] where means over time are stored, else [batch, frames, dim]; `lengths` [batch] counts
        the valid frames (1 for means). Lengths are on the host, here and in `loss` and `decode`, so that reading them
        waits for no device; a head moves them to where its masks are computed. What is done in training only
        (SpecAugment, dropout) goes by `training`.
        """

    @abstractmethod
    def target(self, utterance: Utterance) -> Any:
        """Return what the loss compares the head's output with: a number, a sequence of them, or a tensor."""

    @abstractmethod
    def loss(self, output: Any, lengths: Tensor, targets: Targets) -> Tensor:
        """Return the mean loss [] of a batch; `lengths` [batch] are those of the features, in frames.

        A GPU should neither wait for it nor launch more for more utterances: it loops over none, and reads no tensor.
        Where the loss has weights of its own (AM-softmax), they are part of the head: so they are trained and saved.
        """

    def weight(self, targets: Targets) -> float:
        """Return the weight of a batch's mean loss in that of a larger batch: by default its number of utterances.

        Where memory runs out, a batch is computed in parts, and their losses are added with these weights.
        """
        return len(targets)

    @abstractmethod
    def decode(self, output: Any, lengths: Tensor) -> list[Any]:
        """Return each utterance's answer: as text, or in a form that `rows` turns into text.

        `lengths` [batch] are those of the features, in frames.
        """

    def truth(self, utterance: Utterance) -> str:
        """Return the reference of an utterance, in the form of a `Prediction`'s answer."""
        raise NotImplementedError(f"{type(self).__name__} has no reference per utterance: it overrides rows()")

    def rows(self, manifest: Manifest, decoded: Sequence[Any]) -> list[Prediction]:
        """Return the predictions on a split from what `decode` returned for each utterance, in the manifest's order."""
        return [
            Prediction(u.id, self.truth(u), str(answer), speaker=known_speaker(u))
            for u, answer in zip(manifest, decoded, strict=True)
        ]

    def select(self, dev: Manifest, decoded: Sequence[Any]) -> float:
        """Return the `criterion` on dev."""
        raise NotImplementedError(f"{type(self).__name__} has a criterion, so it defines select()")

    def show(self, decoded: Sequence[Any]) -> list[str]:
        """Return what `predict` prints for each utterance, from what `decode` returned."""
        return [str(answer) for answer in decoded]

    def scores(self, decoded: Sequence[Any], outputs: Sequence[Tensor], lengths: Sequence[int]) -> list[Scores]:
        """Return how sure each utterance's answer is, as `predict --scores` prints it; by default nothing.

        Args:
            decoded: what `decode` returned.
            outputs: the head's output for each utterance, on the host, with what its batch was padded by.
            lengths: frames of each utterance's features.
        """
        del outputs, lengths
        return [{} for _ in decoded]

    def tune(self, dev: Manifest, decoded: Sequence[Any]) -> dict[str, Any]:
        """Tune on dev what training leaves open (thresholds, filters), and return the values for the record."""
        del dev, decoded
        return {}

    def adopt(self, tuned: dict[str, Any]) -> None:
        """Set what `tune` returned in a finished run, as its record holds it."""
        del tuned

    def historical(self, test: Manifest, decoded: Sequence[Any]) -> list[Prediction]:
        """Return the predictions that the published procedure selects on the test set; [] where it doesn't.

        They are scored apart from the strict ones, as historical.
        """
        del test, decoded
        return []

    def sampler(self, train: Manifest, seconds: Sequence[float], settings: TrainingSettings, seed: int) -> BatchSource:
        """Return what draws batches of training utterances; `seconds` is how long each lasts."""
        del seconds
        classes = self.classes(train) if "train" in settings.balance else None
        weights = class_weights(classes) if classes else None
        return Sampler(len(train), settings.batch_size, seed, weights, self.drop_last)

    @classmethod
    def utterances_per_batch(cls, batch_size: int) -> int:
        """Return how many utterances a full batch of `sampler` holds, for a recipe's `train.batch_size`."""
        return batch_size

    def classes(self, manifest: Manifest) -> list[str] | None:
        """Return the class of each row where sampling may balance them, or None where the task has no classes."""
        return manifest.labels(self.label_column) if self.label_column else None


Loss = TypeVar("Loss", bound=Callable[..., Any])


def of_several_heads(loss: Loss) -> Loss:
    """Mark an `utterance_loss` that also takes outputs [heads, batch, outputs], and returns the loss of each [heads].

    The mark is the function's, so that a task which overrides it is asked for one head's loss at a time.
    """
    loss.of_several_heads = True  # type: ignore[attr-defined]
    return loss


class UtteranceTask(TrainedTask):
    """A task whose head has one output for each utterance, so that neither loss nor decoding needs lengths.

    Its means over time suffice unless it sets `pooled` to False.
    """

    pooled: ClassVar[bool] = True

    @abstractmethod
    def utterance_loss(self, output: Tensor, targets: Targets) -> Tensor:
        """Return the mean loss [] of outputs [batch, outputs]."""

    @abstractmethod
    def utterance_answers(self, output: Tensor) -> list[Any]:
        """Return each utterance's answer from outputs [batch, outputs]; see `TrainedTask.decode`."""

    def losses_at_once(self) -> bool:
        """Return whether `loss` takes the outputs of several heads; see `of_several_heads`."""
        own = type(self)
        return own.loss is UtteranceTask.loss and getattr(own.utterance_loss, "of_several_heads", False)

    def loss(self, output: Tensor, lengths: Tensor, targets: Targets) -> Tensor:
        """Return `utterance_loss`."""
        del lengths
        return self.utterance_loss(output, targets)

    def decode(self, output: Tensor, lengths: Tensor) -> list[Any]:
        """Return `utterance_answers`."""
        del lengths
        return self.utterance_answers(output)


class FrameTask(TrainedTask):
    """A task whose head has outputs for each frame: its loss and its decoding use the lengths of the features."""

    pooled: ClassVar[bool] = False


def known_speaker(utterance: Utterance) -> str:
    """Return the speaker of an utterance for its `Prediction`; empty for a clip without speech."""
    return "" if utterance.speaker == NO_SPEAKER else utterance.speaker


def nested(task: BaseTask, scores: Sequence[Score], rows: Sequence[Prediction]) -> list[Score]:
    """Return the scores of rows with the speakers that their units are nested in, where these are known."""
    names = [row.id.partition(" ")[::2] if task.trials else (row.id,) for row in rows]
    speakers = [row.speaker.partition("\t")[::2] if task.trials else (row.speaker,) for row in rows]
    nesting = nest(speakers, names)
    return [replace(score, nesting=nesting) if score.units == len(rows) else score for score in scores]


MAX_CLASSES = 100_000
"""Classes of a head: the largest sets of speakers have a tenth of it."""


def closed_set(corpus: Corpus, column: str) -> list[str]:
    """Return the labels of a column in the training rows, sorted.

    Raises:
        UserError: there are more than `MAX_CLASSES`, or dev or test rows have others; each is named with its line.
    """
    train = corpus.splits["train"]
    classes = sorted(set(train.labels(column)))
    if len(classes) > MAX_CLASSES:
        raise UserError(
            f"{train.source}: column '{column}' holds {len(classes)} different labels, and a head has at most "
            f"{MAX_CLASSES} outputs. Is it a column of classes?"
        )
    for name, split in corpus.splits.items():
        if name != "train":
            check_labels(train, split, column)
    return classes


def accuracy(metric: Metric, rows: Sequence[Prediction]) -> Score:
    """Return the share of rows whose answer equals their truth."""
    right = np.array([row.truth == row.answer for row in rows], dtype=np.float64)
    return replace(ratio(metric, right, np.ones_like(right)), share=True)


SHOWN_CLASSES = 5
"""Classes at most whose probability is shown."""


def class_probabilities(logits: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Return the probabilities of the most probable classes of logits [classes], the best first."""
    best = logits.float().softmax(dim=-1).topk(min(SHOWN_CLASSES, len(classes)))
    return {classes[i]: round(p, 4) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)}


def majority(rows: Sequence[Prediction]) -> float:
    """Return the accuracy, in percent, of always answering with the most frequent truth."""
    _, counts = np.unique([row.truth for row in rows], return_counts=True)
    return float(100.0 * counts.max() / len(rows))
