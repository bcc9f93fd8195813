"""Batches of utterances of similar length, formed once and drawn in random order, as in PR, ASR and SF."""

from __future__ import annotations

from collections.abc import Sequence

from downstreams.batching.sampling import Sampler

LONG_SECONDS = 300_000 / 16_000
"""PR and SF: a bucket whose first utterance lasts longer is halved (18.75 s; s3prl `ctc/data.py`)."""

SPLIT_SAMPLES = 2_000
"""ASR: a group whose longest utterance has more samples is split; all speech has (s3prl `asr/dataset.py`)."""


class Buckets:
    """Draws fixed batches in random order, each once an epoch."""

    def __init__(self, batches: Sequence[list[int]], seed: int) -> None:
        self.batches = batches
        self._order = Sampler(len(batches), 1, seed)

    def batch(self, number: int) -> list[int]:
        """Return the indices of micro-batch `number` (from 0)."""
        (chosen,) = self._order.batch(number)
        return self.batches[chosen]


def overlapping_buckets(labels: Sequence[int], seconds: Sequence[float], size: int) -> list[list[int]]:
    """Return a bucket for each utterance: it and the `size - 1` next shorter ones, by the length of the label.

    So there are as many buckets as utterances, and they overlap; the last ones are the same. Where the first utterance
    of a bucket lasts longer than `LONG_SECONDS`, only its first half is used. In a bucket the longest audio is first.
    """
    order = sorted(range(len(labels)), key=lambda i: -labels[i])
    buckets = []
    for place in range(len(order)):
        first = max(0, min(place, len(order) - size))
        bucket = order[first : first + size]
        if seconds[bucket[0]] > LONG_SECONDS and len(bucket) > 1:
            bucket = bucket[: len(bucket) // 2]
        buckets.append(sorted(bucket, key=lambda i: -seconds[i]))
    return buckets


def halved_groups(seconds: Sequence[float], size: int) -> list[list[int]]:
    """Return groups of `size` utterances from the longest to the shortest, each split into two halves.

    The limit for splitting is meant in frames but compared with samples (s3prl), so that every full group is split: a
    batch of 32 is in fact one of 16. The last group is smaller and stays whole; a single utterance is left out.
    """
    order = sorted(range(len(seconds)), key=lambda i: -seconds[i])
    batches: list[list[int]] = []
    for start in range(0, len(order), size):
        group = order[start : start + size]
        if len(group) == size >= 2 and seconds[group[0]] * 16_000 > SPLIT_SAMPLES:
            batches += [group[: size // 2], group[size // 2 :]]
        elif len(group) > 1 or size == 1:
            batches.append(group)
    return batches or [order]
