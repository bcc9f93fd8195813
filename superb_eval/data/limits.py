"""Few utterances of each split, for a try of a run (`--limit`): by the rows and their labels alone, none at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Set
from dataclasses import replace
from itertools import groupby

from superb_eval.data.manifest import Corpus, Manifest, Trial, Utterance
from superb_eval.errors import UserError

Labels = Callable[[Utterance], frozenset[str]]
"""Returns the labels of an utterance that a head must have an output for."""

TRAIN = "train"


def by_labels(corpus: Corpus, count: int, labels: Labels) -> Corpus:
    """Return at most `count` utterances of each split, in their order, with as many labels as possible.

    Labels that all splits have come first. Dev and test keep rows of labels that the remaining training rows have.

    Raises:
        UserError: dev or test has no such row.
    """
    rows = [u for split in corpus.splits.values() for u in split]
    common = frozenset.intersection(*(_union(split, labels) for split in corpus.splits.values()))
    first = {key: place for place, key in enumerate(dict.fromkeys(map(labels, rows)))}
    limited: dict[str, Manifest] = {}
    for name, split in sorted(corpus.splits.items(), key=lambda item: item[0] != TRAIN):
        known = _union(limited[TRAIN], labels) if TRAIN in limited else None
        candidates = [u for u in split if known is None or labels(u) <= known]
        if not candidates:
            raise UserError(
                f"--limit {count}: no row of {name} has only labels of {count} training row(s). Give a larger limit."
            )
        before: Counter[frozenset[str]] = Counter()
        ranks = []
        for place, utterance in enumerate(candidates):
            key = labels(utterance)
            ranks.append((before[key], not key <= common, first[key], place))
            before[key] += 1
        kept = {candidates[place].id for *_, place in sorted(ranks)[:count]}
        limited[name] = only(split, kept)
    return replace(corpus, splits={name: limited[name] for name in corpus.splits})


def by_trials(split: Manifest, count: int) -> Manifest:
    """Return a split with at most `count` utterances, four at least, and all trials among them.

    Enrolments, or queries, that have a target trial come in turn, each with a target and another trial.
    """
    matched = {trial.enroll for trial in split.trials if trial.target}
    number: Counter[tuple[str, bool]] = Counter()
    place = {enroll: k for k, enroll in enumerate(dict.fromkeys(trial.enroll for trial in split.trials))}
    turns: list[tuple[int, int, bool, Trial]] = []
    for trial in split.trials:
        if trial.enroll in matched and trial.test:
            turns.append((number[trial.enroll, trial.target], place[trial.enroll], not trial.target, trial))
            number[trial.enroll, trial.target] += 1
    kept: set[str] = set()
    for *_, trial in sorted(turns, key=lambda turn: turn[:3]):
        if len(both := kept | {trial.enroll, trial.test}) <= max(count, 4):
            kept = both
    trials = tuple(t for t in split.trials if t.enroll in kept and (t.test in kept or not t.test))
    return replace(only(split, kept), trials=trials)


def by_recording(split: Manifest, count: int) -> Manifest:
    """Return the first recordings of a split, whole: at most `count` chunks, one recording at least."""
    kept: set[str] = set()
    for _, chunks in groupby(split, key=lambda chunk: chunk.labels["recording"]):
        ids = {chunk.id for chunk in chunks}
        if kept and len(kept) + len(ids) > count:
            break
        kept |= ids
    return only(split, kept)


def _union(rows: Iterable[Utterance], labels: Labels) -> frozenset[str]:
    return frozenset(label for utterance in rows for label in labels(utterance))


def only(split: Manifest, ids: Set[str]) -> Manifest:
    """Return a split with the utterances of those ids alone."""
    return replace(split, utterances=tuple(u for u in split if u.id in ids))
