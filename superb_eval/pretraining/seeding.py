"""Seeds and generators of many draws at once: numpy's `SeedSequence`, as one array operation instead of one per draw.

Threads that load batches hold Python's lock while they seed, and the one that launches an update waits for it.
The arithmetic is that of O'Neill's `seed_seq_fe`, which numpy documents as stable over its versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike, NDArray

Words = NDArray[np.uint32]

POOL = 4
"""Words of 32 bits that the entropy is mixed into."""


def derive_seeds(numbers: Sequence[int], last: Sequence[int]) -> list[int]:
    """Return a seed of 63 bits derived from `numbers` and one more, for each of the numbers `last`."""
    common = [word for number in numbers for word in _split(number)]
    entropy = np.tile(np.array([*common, 0], np.uint32), (len(last), 1))
    entropy[:, -1] = last
    return (_generate(entropy, 2).view(np.uint64)[:, 0] >> np.uint64(1)).tolist()  # type: ignore[no-any-return]


def generators(seeds: Sequence[int]) -> Iterator[np.random.Generator]:
    """Yield `numpy.random.default_rng(seed)` for seeds below 2 ** 64."""
    entropy = np.array(seeds, dtype="<u8").view("<u4").reshape(len(seeds), 2)
    for words in _generate(entropy.astype(np.uint32), 2 * POOL).view(np.uint64):
        yield np.random.Generator(np.random.PCG64(_Words(words)))  # type: ignore[arg-type]


class _Words(ISeedSequence):
    """Words that a bit generator is seeded with."""

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint32) -> NDArray[np.uint64]:
        """See numpy's `ISeedSequence`; `PCG64` asks for four words of 64 bits."""
        del n_words, dtype
        return self._words


def _split(number: int) -> list[int]:
    """Return the words of a number, lowest first."""
    count = max(1, -(-number.bit_length() // 32))
    return [(number >> 32 * k) & 0xFFFFFFFF for k in range(count)]


class _Hash:
    """A hash of words whose constant changes with each call."""

    def __init__(self, constant: int, factor: int) -> None:
        self._constant, self._factor = constant, factor

    def __call__(self, words: Words) -> Words:
        words = words ^ np.uint32(self._constant)
        self._constant = self._constant * self._factor & 0xFFFFFFFF
        return _fold(words * np.uint32(self._constant))


def _fold(words: Words) -> Words:
    return words ^ (words >> np.uint32(16))


def _mix(x: Words, y: Words) -> Words:
    return _fold(x * np.uint32(0xCA01F9DD) - y * np.uint32(0x4973F715))


def _generate(entropy: Words, count: int) -> Words:
    """Return `count` words [rows, count] for each row of entropy [rows, words]."""
    rows, length = entropy.shape
    hashed = _Hash(0x43B0D7E5, 0x931E8875)
    zeros = np.zeros(rows, np.uint32)
    pool = [hashed(entropy[:, k] if k < length else zeros) for k in range(POOL)]
    for source in range(POOL):
        for k in range(POOL):
            if k != source:
                pool[k] = _mix(pool[k], hashed(pool[source]))
    for more in entropy[:, POOL:].T:
        pool = [_mix(word, hashed(more)) for word in pool]
    output = _Hash(0x8B51F9DD, 0x58F38DED)
    return np.stack([output(pool[k % POOL]) for k in range(count)], axis=1)
