"""Batches by length: the protocol's rules, written down a second time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from downstreams.batching.buckets import Buckets, halved_groups, overlapping_buckets


def test_buckets_overlap_and_the_last_are_the_same() -> None:
    labels, seconds = [5, 9, 7, 3, 1], [1.0, 2.0, 3.0, 4.0, 5.0]
    assert overlapping_buckets(labels, seconds, 3) == [[2, 1, 0], [3, 2, 0], [4, 3, 0], [4, 3, 0], [4, 3, 0]]


def test_a_bucket_is_halved_where_its_first_utterance_is_long() -> None:
    labels = [9, 8, 7, 6]
    assert overlapping_buckets(labels, [18.75, 30.0, 1.0, 1.0], 4) == [[1, 0, 2, 3]] * 4
    assert overlapping_buckets(labels, [18.7501, 1.0, 1.0, 2.0], 4) == [[0, 1]] * 4
    assert overlapping_buckets([3], [40.0], 4) == [[0]]


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0.1, 40)), min_size=1, max_size=20), st.integers(1, 8))
def test_overlapping_buckets_follow_the_rule(items: list[tuple[int, float]], size: int) -> None:
    labels, seconds = [label for label, _ in items], [second for _, second in items]
    batches = overlapping_buckets(labels, seconds, size)
    assert len(batches) == len(items)
    order = sorted(range(len(items)), key=lambda i: labels[i], reverse=True)
    for place, bucket in enumerate(batches):
        start = max(0, min(place, len(items) - size))
        whole = order[start : start + size]
        keep = len(whole) // 2 if seconds[whole[0]] * 16_000 > 300_000 and len(whole) > 1 else len(whole)
        assert sorted(bucket) == sorted(whole[:keep])
        assert [seconds[i] for i in bucket] == sorted((seconds[i] for i in bucket), reverse=True)


def test_the_batch_of_asr_is_half_the_nominal_one() -> None:
    batches = halved_groups([float(i) for i in range(1, 101)], 32)
    assert [len(b) for b in batches] == [16] * 6 + [4]
    assert batches[0] == list(range(99, 83, -1))


def test_librispeech_gives_the_protocols_number_of_batches() -> None:
    assert len(halved_groups([10.0] * 28_539, 32)) == 1_783


def test_short_groups_stay_whole_and_a_single_utterance_is_left_out() -> None:
    assert halved_groups([0.125, 0.12, 0.11], 2) == [[0, 1]]
    assert halved_groups([0.126, 0.12, 0.11], 2) == [[0], [1]]
    assert halved_groups([3.0], 32) == [[0]]
    assert halved_groups([3.0, 4.0], 1) == [[1], [0]]


def test_each_batch_is_dealt_once_an_epoch_in_an_order_of_the_seed() -> None:
    batches = [[i, i + 1] for i in range(20)]
    dealt = [Buckets(batches, 1).batch(n) for n in range(40)]
    assert sorted(dealt[:20]) == batches == sorted(dealt[20:])
    assert dealt[:20] != dealt[20:] and dealt[:20] != batches
    assert [Buckets(batches, 1).batch(n) for n in (39, 0)] == [dealt[39], dealt[0]]
    assert [Buckets(batches, 2).batch(n) for n in range(20)] != dealt[:20]
