"""Batches of features, as heads on a CPU and on a GPU read them; without a GPU, stand-ins take its part."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from superb_eval.features import dataset
from superb_eval.features.dataset import Features
from superb_eval.runtime import memory


@pytest.fixture
def frames() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(count, 3, 4, dtype=torch.float16) for count in (5, 2, 7, 1)]


def test_frames_are_padded_as_torch_does(frames: list[Tensor]) -> None:
    batch = Features.from_tensors(frames).batch([2, 0, 3])
    chosen = [frames[2], frames[0], frames[3]]
    assert torch.equal(batch.hidden, pad_sequence(chosen, batch_first=True).float())
    assert batch.lengths.tolist() == [7, 5, 1]


def test_means_lie_on_the_device_where_they_fit(frames: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    means = Features.from_tensors([rows.mean(dim=0) for rows in frames])
    size = 4 * 3 * 4 * 2  # utterances, layers, width, bytes
    monkeypatch.setattr(memory, "free_bytes", lambda device: size / dataset.DEVICE_SHARE)
    there = means.to("meta")
    assert there.on_device is not None and there.on_device.dtype == torch.float16
    batch = there.batch([3, 1])
    assert (batch.hidden.device.type, batch.hidden.dtype, batch.lengths.device.type) == ("meta", torch.float32, "cpu")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0.9 * size / dataset.DEVICE_SHARE)
    assert means.to("meta").on_device is None
    here = means.to("cpu").on_device
    assert here is not None and torch.equal(here, torch.stack(means.rows()))
    monkeypatch.setattr(dataset, "HOST_BYTES", size - 1)
    assert means.to("cpu") is means


def test_a_batch_is_the_same_wherever_its_means_lie(frames: list[Tensor]) -> None:
    means = Features.from_tensors([rows.mean(dim=0) for rows in frames])
    there = replace(means, on_device=torch.stack(means.rows()))
    for indices in ([3, 0, 0], range(4)):
        ours, other = there.batch(indices), means.batch(indices)
        assert torch.equal(ours.hidden, other.hidden) and torch.equal(ours.lengths, other.lengths)


def test_frames_for_cuda_are_padded_as_they_are_stored(frames: list[Tensor]) -> None:
    features = Features.from_tensors(frames)
    pinned = features.to("cuda")
    assert pinned.pinned and not features.pinned and not features.to("mps").pinned
    batch = pinned.batch([2, 0, 3])
    assert batch.hidden.dtype == torch.float16
    assert torch.equal(batch.to(torch.device("cpu")).hidden, features.batch([2, 0, 3]).hidden)
