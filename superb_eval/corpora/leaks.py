"""What the splits of a corpus have in common: speakers, files, and segments of audio."""

from __future__ import annotations

import itertools
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cache

from downstreams.metrics import diarization
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import NO_SPEAKER, Corpus, Manifest, Utterance

Pair = tuple[str, str]
"""Two splits."""

Shared = dict[Pair, tuple[str, ...]]
"""The names that two splits have in common, for the pairs that have some."""


def leaks(corpus: Corpus, digests: Mapping[Clip, str], label_column: str | None, *, of_fold: bool) -> list[str]:
    """Return a sentence for each two splits that share audio, and for each two that share speakers.

    Args:
        corpus: as its task reads it; what splits share by the protocol (`Corpus.shared`) is no leak.
        digests: `audio.digest` of every clip.
        label_column: where it is the speaker, splits have to share speakers.
        of_fold: whether this is a fold of a cross-validation, whose dev is drawn from the same rows as train.
    """
    same, _ = shared_files(_places(corpus, digests))
    found = [] if corpus.shared else list(_audio_leaks(same))
    if label_column != "speaker":
        found += _speaker_leaks(shared_speakers(corpus))
    return [text for pair, text in found if not of_fold or "test" in pair]


def shared_speakers(corpus: Corpus) -> Shared:
    """Return the speakers that each two splits have in common; of recordings, those of their turns."""
    names = {name: speakers(split) for name, split in corpus.splits.items()}
    pairs = itertools.combinations(names, 2)
    return {(a, b): tuple(sorted(names[a] & names[b])) for a, b in pairs if names[a] & names[b]}


def speakers(split: Manifest) -> Set[str]:
    """Return the speakers of a split; of recordings, those of their turns."""
    found: set[str] = set()
    for utterance in split:
        found |= _speakers_of(utterance)
    return found - {NO_SPEAKER, ""}


def _speakers_of(utterance: Utterance) -> Set[str]:
    turns = utterance.labels.get("turns")
    try:
        return {turn.speaker for turn in diarization.turns_from_json(turns)} if turns else {utterance.speaker}
    except ValueError:  # a column of that name in the manifest of a task without turns
        return {utterance.speaker}


def shared_files(places: Iterable[tuple[str, str, Utterance]]) -> tuple[Shared, Shared]:
    """Return the names of files of which two splits use the same segment, and of all files that two splits use.

    `places` are utterances with their split and a key of their file.
    """
    files: dict[str, dict[str, list[Utterance]]] = {}
    for split, file, utterance in places:
        files.setdefault(file, {}).setdefault(split, []).append(utterance)
    same: dict[Pair, list[str]] = defaultdict(list)
    shared: dict[Pair, list[str]] = defaultdict(list)
    for splits in files.values():
        for pair in itertools.combinations(splits, 2):
            first, second = splits[pair[0]], splits[pair[1]]
            shared[pair].append(first[0].clip.path.name)
            if _overlap(first, second):
                same[pair].append(first[0].clip.path.name)
    return {k: tuple(sorted(v)) for k, v in same.items()}, {k: tuple(sorted(v)) for k, v in shared.items()}


def first_five(names: Sequence[str]) -> str:
    """Return up to five names, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _places(corpus: Corpus, digests: Mapping[Clip, str]) -> Iterator[tuple[str, str, Utterance]]:
    """Files by their path, and copies under other names by what they hold, where the cut is the same."""
    first_path: dict[str, str] = {}
    real_path = cache(os.path.realpath)  # once per file: a long one may have thousands of clips
    for name, split in corpus.splits.items():
        for utterance in split:
            clip = utterance.clip
            whole = clip.start == 0 and clip.end is None
            path = str(clip.path) if whole else real_path(clip.path)
            yield name, first_path.setdefault(digests[clip], path), utterance


def _audio_leaks(same: Shared) -> Iterator[tuple[Pair, str]]:
    for (a, b), files in same.items():
        effect = f"scores on {b} are" if b == "test" else f"the choice by {b} is"
        yield (a, b), f"{a} and {b} use the same audio ({first_five(files)}): {effect} optimistically biased."


def _speaker_leaks(shared: Shared) -> Iterator[tuple[Pair, str]]:
    for (a, b), names in shared.items():
        yield (a, b), f"{a} and {b} share the speakers {first_five(names)}: scores on {b} are optimistically biased."


def _overlap(first: Iterable[Utterance], second: Iterable[Utterance]) -> bool:
    """Return whether a clip of one list overlaps a clip of the other; both are of one file."""
    segments = [
        (u.clip.start, math.inf if u.clip.end is None else u.clip.end, side)
        for side in (0, 1)
        for u in (first, second)[side]
    ]
    ends = [-math.inf, -math.inf]
    for start, end, side in sorted(segments):
        if start < ends[1 - side]:
            return True
        ends[side] = max(ends[side], end)
    return False
