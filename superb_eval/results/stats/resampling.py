"""Resamples of a test set: how often each of its units counts in each of them.

Units of one speaker are not independent, so it matters what a resample is to stand for. `NEW_SPEAKERS` draws speakers
with all of their units; `THESE_SPEAKERS` draws each speaker's utterances; `NEW_UNITS` draws units, where no speakers
are known. Draws are those of Rao and Wu (1988): of n, n - 1 are drawn and count n / (n - 1) times, so that the variance
is right for small n too.

A trial has two sides, and each side's utterance or speaker is drawn once for all of its trials, so its weight is the
product of two: the pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics 1(2)). Its variance is too large by a
part that comes from each pair alone; that part is drawn apart (`draw_pairs`), for `intervals` to subtract. A pair from
one sample of n keeps (n - 2) / (n - 1) of each side's deviation (Hoeffding 1948); n - 3 draws make up for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from downstreams.metrics.scores import Score

Population = Literal["new speakers", "these speakers", "new units"]
NEW_SPEAKERS: Population = "new speakers"
THESE_SPEAKERS: Population = "these speakers"
NEW_UNITS: Population = "new units"

VERSION = 1
"""Of the draws: raised when the same seed gives other weights. Records name it, so that `verify` knows another version
from a changed interval."""

Weights = NDArray[np.float64]
"""[resamples, units]: how often each unit counts."""

_WEIGHTS_AT_ONCE = 4_000_000
"""Weights drawn at once, which bounds memory at about 100 MB."""

_WEIGHTS_KEPT = 1_000_000
"""Weights that are kept at most, of each of the last test sets: 8 MB."""


def population(score: Score, asked: Population = NEW_SPEAKERS) -> Population:
    """Return what a score can be resampled over: what is asked for, as far as its speakers are known.

    One speaker alone, of the test set or of a fold, shows nothing of others, so then its utterances are drawn.
    """
    if score.nesting is None or asked == NEW_UNITS:
        return NEW_UNITS
    _, strata = _groups(score, NEW_SPEAKERS)
    alone = np.unique(strata, return_counts=True)[1].min() == 1
    return THESE_SPEAKERS if alone else asked


def degrees_of_freedom(score: Score, of: Population) -> int:
    """Return how many independent deviations the variance over a population is estimated from."""
    _, strata = _groups(score, of)
    return len(strata) - len(np.unique(strata))


def draw(score: Score, of: Population, count: int, rng: np.random.Generator) -> Iterator[Weights]:
    """Yield the weights of `count` resamples, some at a time."""
    groups, strata = _groups(score, of)
    sides = groups.shape[1]
    for size in _sizes(count, max(score.units, len(strata))):
        multiplicities = _multiplicities(strata, size, rng, lost=1 if sides == 1 else 3)
        yield multiplicities[:, groups[:, 0]] if sides == 1 else _products(groups, strata, multiplicities)


def draw_pairs(score: Score, of: Population, count: int, rng: np.random.Generator) -> Iterator[Weights]:
    """Yield weights that vary as much as that part of `draw`'s which belongs to each pair alone and is too much.

    Units with one side have no such part: nothing is yielded.
    """
    groups, strata = _groups(score, of)
    if groups.shape[1] == 1:
        return
    first, second = groups.min(axis=1), groups.max(axis=1)
    _, pair = np.unique(first * len(strata) + second, return_inverse=True)
    excess = _excess(groups, strata)
    for size in _sizes(count, score.units):
        uniform = rng.random((size, int(pair.max()) + 1))[:, pair]
        yield (1 + excess) * (uniform < 1 / (1 + excess))  # mean 1, variance `excess`


def leave_out(score: Score, of: Population, blocks: int) -> Iterator[NDArray[np.float64]]:
    """Yield weights [units] that leave out each group in turn, or blocks of them, `blocks` at most."""
    groups, strata = _groups(score, of)
    order = np.random.default_rng(0).permutation(len(strata))
    for block in np.array_split(order, min(blocks, len(strata))):
        kept = np.ones(len(strata))
        kept[block] = 0.0
        yield kept[groups].min(axis=1)


def _sizes(count: int, width: int) -> Iterator[int]:
    at_once = max(1, _WEIGHTS_AT_ONCE // width)
    for start in range(0, count, at_once):
        yield min(at_once, count - start)


def _groups(score: Score, of: Population) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """What is drawn: the groups that each unit is in [units, sides], and the stratum of each group [groups]."""
    folds = np.zeros(score.units, dtype=np.intp) if score.strata is None else score.strata
    nesting = score.nesting
    if nesting is None or of == NEW_UNITS:
        return np.arange(score.units)[:, None], folds
    fold = np.zeros(len(nesting.speakers), dtype=np.intp)
    fold[nesting.utterances] = folds[:, None]
    if of == THESE_SPEAKERS:
        return nesting.utterances, _pool_single(fold * (nesting.speakers.max() + 1) + nesting.speakers)
    fold_of_speaker = np.zeros(nesting.speakers.max() + 1, dtype=np.intp)
    fold_of_speaker[nesting.speakers] = fold
    return nesting.speakers[nesting.utterances], fold_of_speaker


def _pool_single(strata: NDArray[np.intp]) -> NDArray[np.intp]:
    """Strata with all that have a single member pooled: nothing varies within one member."""
    _, index, counts = np.unique(strata, return_inverse=True, return_counts=True)
    return np.where(counts[index] == 1, -1, index).astype(np.intp)


def _multiplicities(strata: NDArray[np.intp], size: int, rng: np.random.Generator, lost: int) -> Weights:
    """How often each group is drawn [size, groups], in each stratum `lost` draws fewer than it has groups.

    The rows of a table share their test units, and drawing takes longer than most metrics: small ones are kept.
    """
    if size * len(strata) > _WEIGHTS_KEPT:
        return _draw_multiplicities(strata, size, rng, lost)
    drawn, state = _kept_multiplicities(strata.tobytes(), size, json.dumps(rng.bit_generator.state), lost)
    rng.bit_generator.state = json.loads(state)
    return drawn


@lru_cache(16)
def _kept_multiplicities(strata: bytes, size: int, state: str, lost: int) -> tuple[Weights, str]:
    """The same by the state of the generator, with its state afterwards; read-only, since they are shared."""
    rng = np.random.default_rng()
    rng.bit_generator.state = json.loads(state)
    drawn = _draw_multiplicities(np.frombuffer(strata, dtype=np.intp), size, rng, lost)
    drawn.setflags(write=False)
    return drawn, json.dumps(rng.bit_generator.state)


def _draw_multiplicities(strata: NDArray[np.intp], size: int, rng: np.random.Generator, lost: int) -> Weights:
    drawn = np.ones((size, len(strata)))
    for stratum in np.unique(strata):
        (members,) = np.nonzero(strata == stratum)
        n = len(members)
        if n > 1:
            draws = _draws(n, lost)
            # Ten times as fast as rng.multinomial.
            chosen = rng.integers(0, n, size=(size, draws)) + n * np.arange(size)[:, None]
            counts = np.bincount(chosen.ravel(), minlength=size * n).reshape(size, n)
            drawn[:, members] = counts * (n / draws)
    return drawn


def _draws(n: int, lost: int) -> int:
    """A pair needs two draws at least, or it would never be drawn."""
    return max(min(lost, 2), n - lost)


def _products(groups: NDArray[np.intp], strata: NDArray[np.intp], drawn: Weights) -> Weights:
    """The weight of each unit [size, units]: the product of its two sides, or its one group's where they are the same.

    Only pairs from one stratum need the larger deviations of `lost` = 3.
    """
    _, index, counts = np.unique(strata, return_inverse=True, return_counts=True)
    n = counts[index]
    shrink = np.sqrt([_draws(k, 3) / max(1, k - 1) for k in n.tolist()])
    plain = 1 + (drawn - 1) * shrink
    first, second = groups.T
    product = np.where(
        strata[first] == strata[second], drawn[:, first] * drawn[:, second], plain[:, first] * plain[:, second]
    )
    return np.where(first == second, plain[:, first], product)


def _excess(groups: NDArray[np.intp], strata: NDArray[np.intp]) -> NDArray[np.float64]:
    """The relative variance of each unit's weight [units] less 1: what its pair alone adds too much."""
    _, index, counts = np.unique(strata, return_inverse=True, return_counts=True)
    first, second = groups.T
    # Two independent sides of variance 1: (1 + 1)(1 + 1) - 1 = 3, of which 1 is right.
    excess = np.full(len(groups), 2.0)
    within = strata[first] == strata[second]
    excess[within] = [_relative_variance(n) - 1 for n in counts[index[first[within]]].tolist()]
    return np.where(first == second, 0.0, np.maximum(excess, 0.0))


@cache
def _relative_variance(n: int) -> float:
    """The variance, over the squared mean, of the product of two counts of a multinomial draw from n."""
    draws = _draws(n, 3)
    moment = [math.prod(range(draws - k + 1, draws + 1)) / n**k for k in range(5)]  # of falling factorials
    return float((moment[4] + 2 * moment[3] + moment[2]) / moment[2] ** 2 - 1)
