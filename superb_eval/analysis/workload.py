"""What a run of a task has to do, whatever its upstream: from a corpus at hand, or from published sizes without it."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from downstreams import registry as tasks
from downstreams.base import BaseTask, SearchTask, Setup, TrainedTask
from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus, Manifest
from superb_eval.errors import UserError
from superb_eval.recipe import Recipe

SPLIT_SHARES = (0.6, 0.2, 0.2)
"""Shares of train, dev and test, about, in a corpus of which only the size is known."""

QUESST14 = (138, 2_438)
"""Queries and documents of the official corpus, on dev and on test."""

QUERY_SHARE = 0.25
"""Share of queries in the clips of a search, about, likewise."""

DECODED_CLIPS = 8
"""Clips that are read to see how long that takes."""

SAMPLED_BATCHES = 16
"""Training batches whose padded length is looked at."""


@dataclass(frozen=True)
class Workload:
    """A task's recipe, the sizes of its corpus, and what its head is built from.

    `utterances` are those of train, dev and test of one of `folds`; `clips` are those of all, each once, of `seconds`
    on average; training batches are padded to `padded` seconds. `labels` is what `TrainedTask.learn` returns, `target`
    makes a target of a task for so many frames. A search looks for so many queries in so many documents (`searched`),
    on dev and on test. `audio` identifies the clips where they are known: tasks with the same ones share features;
    `decoding` is then how many seconds of a core it takes to read a second of them.
    """

    recipe: Recipe
    utterances: tuple[int, int, int]
    clips: int
    seconds: float
    padded: float
    folds: int
    labels: Any
    target: Callable[[TrainedTask, int], Any]
    searched: tuple[int, int] = (0, 0)
    audio: str = ""
    decoding: float = 0.0

    @property
    def kind(self) -> type[BaseTask]:
        """The class of the task."""
        return tasks.get(self.recipe.task)

    @property
    def pooled(self) -> bool:
        """Whether features are means over time."""
        return self.recipe.features.pooled and self.kind.pooled

    @property
    def audio_seconds(self) -> float:
        """The length of all clips together."""
        return self.clips * self.seconds

    def limited(self, limit: int | None) -> Workload:
        """Return the workload of a try with at most that many utterances of each split; None: of all."""
        if limit is None:
            return self
        train, dev, test = (min(limit, count) for count in self.utterances)
        queries, documents = (min(limit, count) for count in self.searched)
        clips = min(self.clips, self.folds * limit if self.folds > 1 else train + dev + test)
        return replace(self, utterances=(train, dev, test), clips=clips, searched=(queries, documents))

    def task(self, stride: int = 320) -> BaseTask:
        """Return the task on features of so many samples per frame."""
        head = self.kind.Head.model_validate(self.recipe.head)
        return self.kind(Setup(self.labels, head, stride))


def of_published(recipe: Recipe) -> Workload:
    """Return the workload of a task on its official corpus, by published sizes.

    Raises:
        UserError: it is not a task of SUPERB.
    """
    official = tasks.get(recipe.task).official_corpus
    if official is None:
        raise UserError(f"{recipe.task}: has no official corpus, so nothing can be estimated. Leave it out of --tasks.")
    return Workload(
        recipe,
        official.utterances,
        clips=official.distinct or sum(official.utterances),
        seconds=official.seconds,
        padded=official.seconds,
        folds=official.folds,
        labels=official.labels,
        target=lambda task, frames: official.target(frames),
        searched=QUESST14,
    )


def of_size(recipe: Recipe, clips: int, seconds: float) -> Workload:
    """Return the workload of a corpus that is still to be made, of so many clips of `seconds` together; its labels are
    those of the official one."""
    published = of_published(recipe)
    train, dev, test = (round(share * clips) for share in SPLIT_SHARES)
    queries = round(QUERY_SHARE * clips / 2)  # half of the clips are dev's
    return replace(
        published,
        utterances=(train, dev, test),
        clips=clips,
        seconds=seconds / clips,
        padded=seconds / clips,
        searched=(queries, clips // 2 - queries),
    )


def of_corpus(recipe: Recipe, corpus: Corpus) -> Workload:
    """Return the workload of a corpus at hand; the first fold stands for all.

    Raises:
        UserError: see the task's `learn` and `audio.read`.
    """
    kind, clips = tasks.get(recipe.task), corpus.clips()
    folds = kind.folds(corpus)
    first, head = folds[0], kind.Head.model_validate(recipe.head)
    seconds = fmean(audio.seconds(clip) for clip in clips)
    train, dev, test = (len(first.splits.get(name, ())) for name in ("train", "dev", "test"))
    workload = Workload(
        recipe,
        (train, dev, test),
        clips=len(clips),
        seconds=seconds,
        padded=seconds,
        folds=len(folds),
        labels=kind.learn(first, head),
        target=lambda task, frames: None,
        searched=_searched(first.splits["dev"]) if issubclass(kind, SearchTask) else (0, 0),
        audio=hashlib.sha256(repr(sorted(map(repr, clips))).encode()).hexdigest(),
        decoding=_decoding(clips[:: math.ceil(len(clips) / DECODED_CLIPS)]),
    )
    return _with_padded(workload, first.splits["train"]) if train else workload


def _with_padded(workload: Workload, train: Manifest) -> Workload:
    """Return a workload whose padded length, and target, are those of the utterance that is nearest to what batches of
    the task's own sampler are padded to."""
    task, settings = workload.task(), workload.recipe.train_settings
    if not isinstance(task, TrainedTask):
        return workload
    seconds = [audio.seconds(utterance.clip) for utterance in train]
    sampler = task.sampler(train, seconds, settings, 0)
    longest = fmean(max(seconds[i] for i in sampler.batch(number)) for number in range(SAMPLED_BATCHES))
    nearest = min(range(len(train)), key=lambda i: abs(seconds[i] - longest))

    def target(task: TrainedTask, frames: int) -> Any:
        del frames
        return task.target(train.utterances[nearest])

    return replace(workload, padded=seconds[nearest], target=target)


def _decoding(clips: Sequence[Clip]) -> float:
    """Return the seconds of a core that reading a second of clips takes."""
    started = time.process_time()
    samples = sum(len(audio.read(clip)) for clip in clips)
    return (time.process_time() - started) * audio.SAMPLE_RATE / max(1, samples)


def _searched(split: Manifest) -> tuple[int, int]:
    """Return the numbers of queries and documents of a split."""
    roles = Counter(utterance.labels["role"] for utterance in split)
    return roles["query"], len(split) - roles["query"]
