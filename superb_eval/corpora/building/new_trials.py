"""Makes ASV trials of a split: pairs of its utterances, half of them of one speaker, each pair once."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from superb_eval.corpora.building.new_row import NewRow, shuffle_key
from superb_eval.data.manifest import Trial
from superb_eval.errors import UserError


def make_trials(rows: Sequence[NewRow], count: int, seed: int, split: str) -> list[Trial]:
    """Return up to `count` trials, half of one speaker and half of two; fewer where there are fewer pairs.

    The pairs of one speaker are spread evenly over the speakers.

    Raises:
        UserError: there is no pair of one kind.
    """
    uniform = _uniform(f"{seed}|{split}")
    speakers: dict[str, list[NewRow]] = defaultdict(list)
    for row in rows:
        speakers[row.speaker].append(row)
    targets = _target_pairs(speakers, count // 2, uniform)
    others = _pairs_of_two(rows, count // 2, uniform)
    if not targets or not others:
        raise UserError(
            f"{split} has {len(rows)} utterances of {len(speakers)} speaker(s): trials need two speakers, and two "
            "utterances of one. Give other --shares, or a source with more utterances per speaker."
        )
    pairs = sorted([*targets, *others], key=lambda pair: shuffle_key(seed, f"{pair[0].id} {pair[1].id}"))
    return [Trial(first.id, second.id, first.speaker == second.speaker) for first, second in pairs]


def _target_pairs(
    speakers: Mapping[str, Sequence[NewRow]], count: int, uniform: Iterator[float]
) -> list[tuple[NewRow, NewRow]]:
    pairs = []
    left = count
    available = {name: math.comb(len(rows), 2) for name, rows in speakers.items()}
    # Those with the fewest pairs first, so that what they lack is shared by the others.
    order = sorted(speakers, key=lambda name: (available[name], name))
    for position, name in enumerate(order):
        quota = min(available[name], math.ceil(left / (len(order) - position)))
        left -= quota
        pairs += [_pair(speakers[name], number) for number in _sample(available[name], quota, uniform)]
    return pairs


def _pairs_of_two(rows: Sequence[NewRow], count: int, uniform: Iterator[float]) -> list[tuple[NewRow, NewRow]]:
    """Return `count` pairs of utterances of two speakers, or all where there are no more."""
    total = math.comb(len(rows), 2)
    chosen: list[tuple[NewRow, NewRow]] = []
    # An ordered sample of all pairs, from which those of one speaker are left out.
    size = min(total, 2 * count)
    while True:
        sampled = (_pair(rows, number) for number in sorted(_sample(total, size, uniform)))
        chosen = [pair for pair in sampled if pair[0].speaker != pair[1].speaker]
        if len(chosen) >= count or size == total:
            return [chosen[i] for i in sorted(_sample(len(chosen), min(count, len(chosen)), uniform))]
        size = min(total, 2 * size)


def _pair(rows: Sequence[NewRow], number: int) -> tuple[NewRow, NewRow]:
    """Return a pair of different rows by its number, from 0 to that of all pairs."""
    second = (1 + math.isqrt(1 + 8 * number)) // 2
    return rows[number - second * (second - 1) // 2], rows[second]


def _sample(total: int, count: int, uniform: Iterator[float]) -> set[int]:
    """Return `count` different numbers below `total` (Floyd's algorithm: Bentley & Floyd 1987)."""
    chosen: set[int] = set()
    for last in range(total - count, total):
        number = int(next(uniform) * (last + 1))
        chosen.add(last if number in chosen else number)
    return chosen


def _uniform(key: str) -> Iterator[float]:
    """Yield numbers from 0 to below 1 that depend on the key alone, on every platform and version."""
    for number in itertools.count():
        digest = hashlib.sha256(f"{key}|{number}".encode()).digest()
        yield int.from_bytes(digest[:6], "big") / 2**48
