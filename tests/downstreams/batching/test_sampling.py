from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from downstreams import registry
from downstreams.base import TrainedTask
from downstreams.batching.sampling import Sampler, class_weights


@given(size=st.integers(1, 50), batch=st.integers(1, 60), seed=st.integers(0, 5), drop_last=st.booleans())
def test_an_epoch_draws_batches_as_torch_does(size: int, batch: int, seed: int, drop_last: bool) -> None:
    """Of the sizes that a `DataLoader` gives; a corpus smaller than a batch is kept whole."""
    sampler = Sampler(size, batch, seed, drop_last=drop_last)
    expected = [len(b) for b in torch.utils.data.DataLoader(range(size), batch, drop_last=drop_last and size >= batch)]  # type: ignore[arg-type]
    assert sampler.per_epoch == len(expected)
    for epoch in range(2):
        batches = [sampler.batch(epoch * sampler.per_epoch + k) for k in range(sampler.per_epoch)]
        seen = [i for drawn in batches for i in drawn]
        assert [len(drawn) for drawn in batches] == expected
        assert len(seen) == len(set(seen)) == sum(expected)


def test_only_ks_leaves_the_smaller_last_batch_out_as_in_s3prl() -> None:
    """In s3prl `speech_commands/expert.py` alone sets `drop_last=True` for training."""
    trained = {name: task for name in registry.names() if issubclass(task := registry.get(name), TrainedTask)}
    assert {name for name, task in trained.items() if task.drop_last} == {"ks"}


def test_batches_can_be_drawn_in_any_order() -> None:
    in_order = Sampler(100, 8, seed=3)
    expected = [in_order.batch(k) for k in range(40)]
    for k in (39, 0, 17):
        assert Sampler(100, 8, seed=3).batch(k) == expected[k]
    assert Sampler(100, 8, seed=4).batch(0) != expected[0]
    assert expected[0] != expected[in_order.per_epoch], "epochs differ"


def test_balanced_draws_show_classes_equally_often() -> None:
    classes = ["a"] * 900 + ["b"] * 90 + ["c"] * 10
    sampler = Sampler(1000, 100, seed=0, weights=class_weights(classes))
    drawn = Counter(classes[i] for k in range(100) for i in sampler.batch(k))
    assert all(abs(count / 10_000 - 1 / 3) < 0.02 for count in drawn.values())


def test_weights_are_s3prls() -> None:
    assert class_weights(["a", "a", "b"]).tolist() == pytest.approx([1.5, 1.5, 3.0])
    assert class_weights(["a"]).dtype == torch.float64
