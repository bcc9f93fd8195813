"""Divides utterances into splits: whole speakers at a time, every class in train, shares met as closely as possible.

Units that must stay together (the utterances of a speaker, segments that overlap) are first distributed by iterative
stratification (Sechidis et al. 2011, "On the Stratification of Multi-Label Data"), the rarest class first; then units
are moved, and exchanged where they are few, as long as the result improves. All is decided by the seed.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from superb_eval.corpora.building.new_row import NewRow, shuffle_key
from superb_eval.data.importers.source import TableAudio

MAX_EXCHANGED = 300
"""Units up to which pairs of them are exchanged: their number is quadratic."""

Counts = dict[str, int]
Cost = tuple[float, ...]


@dataclass(frozen=True)
class Unit:
    """Rows that stay together; `classes` counts its rows of each class."""

    key: str
    rows: tuple[NewRow, ...]
    classes: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.rows)


def units_of(rows: Sequence[NewRow], by_speaker: bool) -> list[Unit]:
    """Return the units of rows: rows that share audio are in one, and those that share a speaker if `by_speaker`."""
    parents = list(range(len(rows)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    pairs = [*_overlapping(rows), *(_same_speaker(rows) if by_speaker else ())]
    for first, second in pairs:
        parents[root(second)] = root(first)
    groups: dict[int, list[NewRow]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[root(i)].append(row)
    return [
        Unit(min(row.id for row in group), tuple(group), Counter(c for row in group for c in row.classes))
        for group in groups.values()
    ]


def divide(units: Sequence[Unit], shares: Mapping[str, float], seed: int, least: int = 1) -> dict[str, list[NewRow]]:
    """Return the rows of each split of `shares` (parts of any total), in their order.

    There must be `least` units for each split, so that each gets as many. What is met next, in this order: every class
    is in train, no split is more than half of its share too large or too small, every class is in every split, shares.
    """
    division = _Division(sorted(units, key=lambda unit: shuffle_key(seed, unit.key)), shares, least)
    division.stratify()
    division.improve()
    result: dict[str, list[NewRow]] = {name: [] for name in shares}
    for unit, split in zip(division.units, division.split_of, strict=True):
        result[split] += unit.rows
    return result


def divide_each_speaker(
    rows: Sequence[NewRow], shares: Mapping[str, float], seed: int
) -> tuple[dict[str, list[NewRow]], set[str]]:
    """Return the rows of each split, every speaker in all of them, and the speakers who have too few utterances.

    Each split but the first gets the rounded share of a speaker's utterances, and one at least.
    """
    by_speaker: dict[str, list[NewRow]] = defaultdict(list)
    for row in rows:
        by_speaker[row.speaker].append(row)
    first, *others = shares
    result: dict[str, list[NewRow]] = {name: [] for name in shares}
    left_out = set()
    for speaker, spoken in sorted(by_speaker.items()):
        units = sorted(units_of(spoken, by_speaker=False), key=lambda unit: shuffle_key(seed, unit.key))
        if len(units) < len(shares):
            left_out.add(speaker)
            continue
        for k, name in enumerate(others):
            after = len(others) - k  # splits that still need a unit, the first among them
            count = round(len(spoken) * shares[name] / sum(shares.values()))
            for _ in range(max(1, min(count, len(units) - after))):
                result[name] += units.pop().rows
        result[first] += [row for unit in units for row in unit.rows]
    return result, left_out


def _same_speaker(rows: Sequence[NewRow]) -> Iterator[tuple[int, int]]:
    firsts: dict[str, int] = {}
    for i, row in enumerate(rows):
        for speaker in row.speakers:
            yield firsts.setdefault(speaker, i), i


def _overlapping(rows: Sequence[NewRow]) -> Iterator[tuple[int, int]]:
    """Yield the indices of rows whose clips overlap in the same file."""
    files: dict[Path | TableAudio, list[int]] = defaultdict(list)
    for i, new_row in enumerate(rows):
        files[new_row.row.audio].append(i)
    for indices in files.values():
        latest = None
        for i in sorted(indices, key=lambda i: rows[i].row.start):
            if latest is not None and rows[i].row.start < _end(rows[latest]):
                yield latest, i
            if latest is None or _end(rows[i]) > _end(rows[latest]):
                latest = i


def _end(row: NewRow) -> float:
    return math.inf if row.row.end is None else row.row.end


class _Division:
    """Units and the split of each; counts are kept up to date, so that a move takes as long as a unit has classes."""

    def __init__(self, units: Sequence[Unit], shares: Mapping[str, float], least: int) -> None:
        self.units = list(units)
        self.least = least
        total = sum(map(len, units))
        self.splits = list(shares)
        self.wanted = {name: total * share / sum(shares.values()) for name, share in shares.items()}
        self.classes: Counter[str] = Counter()
        for unit in units:
            self.classes.update(unit.classes)
        self.split_of = [""] * len(self.units)
        self.sizes: Counter[str] = Counter()
        self.numbers: Counter[str] = Counter()
        self.by_class: dict[str, Counter[str]] = {name: Counter() for name in self.splits}
        self.absent = dict.fromkeys(self.splits, len(self.classes))
        self.cost: Cost = ()

    def stratify(self) -> None:
        """Assign every unit: of the rarest class first, to the split that lacks most of that class."""
        total = sum(map(len, self.units))
        units_with: dict[str, list[int]] = defaultdict(list)
        for i, unit in enumerate(self.units):
            for label in unit.classes:
                units_with[label].append(i)
        for label in sorted(units_with, key=lambda label: (len(units_with[label]), label)):
            lacking = {name: wanted * self.classes[label] / total for name, wanted in self.wanted.items()}
            for i in units_with[label]:
                if not self.split_of[i]:
                    here = {name: lacking[name] - self.by_class[name][label] for name in self.splits}
                    self._assign(i, max(self.splits, key=lambda name: (here[name], self._lacks(name))))
        for i in range(len(self.units)):
            if not self.split_of[i]:
                self._assign(i, max(self.splits, key=self._lacks))
        self.cost = self._cost()

    def improve(self) -> None:
        """Move units, and exchange pairs, while that lowers the cost and shares are not yet met to a thousandth."""
        met = (0, 0, 0, 0, sum(map(len, self.units)) / 1000)
        better = True
        while better and self.cost >= met:
            better = False
            for i, split in itertools.product(range(len(self.units)), self.splits):
                better |= self.cost >= met and self._try([(i, split)])
            if not better and len(self.units) <= MAX_EXCHANGED:
                better = any(
                    self._try([(i, self.split_of[j]), (j, self.split_of[i])])
                    for i, j in itertools.combinations(range(len(self.units)), 2)
                )

    def _lacks(self, split: str) -> float:
        return self.wanted[split] - self.sizes[split]

    def _try(self, moves: Iterable[tuple[int, str]]) -> bool:
        """Make the moves if they lower the cost; return whether they did."""
        moves = [(i, split) for i, split in moves if self.split_of[i] != split]
        if not moves:
            return False
        former = [(i, self.split_of[i]) for i, _ in moves]
        self._move(moves)
        cost = self._cost()
        if cost < self.cost:
            self.cost = cost
            return True
        self._move(former)
        return False

    def _move(self, moves: Iterable[tuple[int, str]]) -> None:
        for i, split in moves:
            self._count(i, -1)
            self._assign(i, split)

    def _assign(self, i: int, split: str) -> None:
        self.split_of[i] = split
        self._count(i, 1)

    def _count(self, i: int, sign: int) -> None:
        split, unit = self.split_of[i], self.units[i]
        self.sizes[split] += sign * len(unit)
        self.numbers[split] += sign
        here = self.by_class[split]
        for label, count in unit.classes.items():
            was = here[label]
            here[label] += sign * count
            self.absent[split] += (here[label] == 0) - (was == 0)

    def _cost(self) -> Cost:
        """Return what is to be low, the most important first."""
        errors = {name: abs(self.sizes[name] - wanted) for name, wanted in self.wanted.items()}
        return (
            sum(max(0, self.least - self.numbers[name]) for name in self.splits),
            self.absent[self.splits[0]],
            round(sum(max(0.0, error - self.wanted[name] / 2) for name, error in errors.items()), 6),
            sum(self.absent[name] for name in self.splits[1:]),
            round(sum(errors.values()), 6),
        )
