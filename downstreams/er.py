"""ER, emotion recognition: the emotion of an utterance, by cross-validation over sessions.

Protocol: SUPERB (arXiv 2105.01051, section 3.1) as s3prl's `downstream/emotion` runs it on IEMOCAP: neutral, happy
(with excited), angry, sad. Projector, mean over time, linear; cross-entropy. Fold k tests session k; of the other
utterances, four fifths train and the rest selects the checkpoint. The figure is the plain mean of the folds'
accuracies.

A folder of manifests is cross-validated likewise where its rows have a label `fold`; their files then only list rows.
Without it, the given splits are one fold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downstreams.base import Prediction
from downstreams.metrics.scores import Score
from downstreams.task_types.classification import Classification
from downstreams.task_types.official_corpus import OfficialCorpus, numbered
from superb_eval.data import limits
from superb_eval.data.manifest import Corpus, Manifest, Utterance
from superb_eval.errors import UserError
from superb_eval.runtime.lazy_torch import torch

TRAIN_SHARE = 1 - 0.2
"""Of the utterances outside a fold; as s3prl computes it, for the rounding."""

SPLIT_SEED = 0
"""Decides which utterances outside a fold train, whatever the seed of a run (s3prl `downstream/emotion/expert.py`)."""


class EmotionRecognition(Classification):
    """Classes are those of IEMOCAP as the protocol numbers them, then others, sorted."""

    version = 2
    name = "er"
    title = "emotion recognition"
    columns = ("emotion",)
    label_column = "emotion"
    official_classes = ("neu", "hap", "ang", "sad")
    paper_position = 9
    official_corpus = OfficialCorpus((3_540, 885, 1_106), 4.5, numbered(4), folds=5, distinct=5_531)

    @classmethod
    def folds(cls, corpus: Corpus) -> list[Corpus]:
        """Return a corpus for each value of the label `fold`, which it tests; the corpus itself where there is none.

        Dev is a random fifth of the other folds' utterances, so it shares speakers with train, as in the protocol.

        Raises:
            UserError: rows without a fold among others that have one, one fold alone, or an id twice.
        """
        everything = [u for split in corpus.splits.values() for u in split]
        numbers = sorted({u.labels.get("fold", "") for u in everything}, key=_natural_key)
        if numbers == [""]:
            return [corpus]
        _check_folds(corpus, everything, numbers)
        # Rows of several files: messages name them by id, since a line number would be ambiguous.
        rows = [replace(u, line=0) for u in everything]
        return [_fold(corpus, rows, number) for number in numbers]

    @classmethod
    def limited(cls, corpus: Corpus, count: int, head: Any) -> Corpus:
        """Return at most `count` utterances of each fold, or of each split where there are no folds."""
        folds: dict[str, list[Utterance]] = {}
        for utterance in (u for split in corpus.splits.values() for u in split):
            folds.setdefault(utterance.labels.get("fold", ""), []).append(utterance)
        if list(folds) == [""]:
            return super().limited(corpus, count, head)
        by_fold = {fold: Manifest(fold, tuple(rows), corpus.root) for fold, rows in folds.items()}
        few = limits.by_labels(replace(corpus, splits=by_fold), count, lambda u: cls.label_set(u, head))
        kept = {u.id for split in few.splits.values() for u in split}
        return replace(corpus, splits={name: limits.only(split, kept) for name, split in corpus.splits.items()})

    def score(self, rows: Sequence[Prediction]) -> list[Score]:
        """Return the mean over folds of the accuracy within each; an interval resamples within folds."""
        folds = np.array([row.fold for row in rows], dtype=np.intp)
        right = np.array([row.truth == row.answer for row in rows], dtype=np.float64)

        members = [(folds == k).astype(np.float64) for k in np.unique(folds)]

        def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            with np.errstate(invalid="ignore"):  # a resample may leave a fold empty
                shares = [(weights @ (right * member)) / (weights @ member) for member in members]
            return np.asarray(100.0 * np.mean(shares, axis=0))

        return [Score(self.metrics[0], len(rows), statistic, strata=folds, by_unit=100.0 * right)]

    def chance(self, rows: Sequence[Prediction]) -> float:
        """Return what the best of all constant answers scores."""
        answers = {row.truth for row in rows}
        return max(self.score([row._replace(answer=answer) for row in rows])[0].value for answer in answers)


def _fold(corpus: Corpus, rows: Sequence[Utterance], number: str) -> Corpus:
    others = [u for u in rows if u.labels["fold"] != number]
    # s3prl seeds torch with 0 right before `random_split`: the same permutation.
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    count = int(TRAIN_SHARE * len(others))
    splits = {
        "train": [others[i] for i in order[:count]],
        "dev": [others[i] for i in order[count:]],
        "test": [u for u in rows if u.labels["fold"] == number],
    }
    source = corpus.root / "er"
    return replace(corpus, splits={name: Manifest(name, tuple(chosen), source) for name, chosen in splits.items()})


def _check_folds(corpus: Corpus, rows: Sequence[Utterance], numbers: Sequence[str]) -> None:
    if "" in numbers:
        without = [u.id for u in rows if not u.labels.get("fold")]
        raise UserError(
            f"{corpus.root}: {len(without)} of {len(rows)} ER rows have no fold, such as '{without[0]}'. "
            "Give each row one, or leave the column out to use the splits as they are."
        )
    if len(numbers) == 1:
        raise UserError(
            f"{corpus.root}: every ER row is of fold '{numbers[0]}'; two at least are needed. "
            "Leave the column fold out to use the splits as they are."
        )
    twice = [name for name, count in Counter(u.id for u in rows).items() if count > 1]
    if twice:
        raise UserError(
            f"{corpus.root}: {len(twice)} ER id(s) are in two splits, such as '{twice[0]}'. "
            "Folds are made of all rows together; keep one row of each id."
        )


def _natural_key(number: str) -> list[tuple[int, str]]:
    """Sort key that puts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", number)]
