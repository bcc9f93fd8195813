"""Batches on a grid of shapes, as a GPU gets them: few shapes, the same features, no operation per clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.features.extract import Extraction, Extractor, extract
from superb_eval.features.padded_batches import BatchShapes
from superb_eval.runtime import devices
from tests.operations import Operations
from upstreams import registry
from upstreams.base import Upstream
from upstreams.loading import conv_frontend


@pytest.fixture
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CPU", "none")
    monkeypatch.setattr(conv_frontend, "ONE_BY_ONE", frozenset())


def noise(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [0.1 * rng.standard_normal(length).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("shard", [128, 400])
def test_a_corpus_has_few_shapes(upstream: Upstream, shard: int) -> None:
    """Lengths of 1 to 16 s, extracted shard by shard."""
    lengths = np.random.default_rng(0).uniform(1, 16, size=400) * audio.SAMPLE_RATE
    shapes = BatchShapes.of(upstream, "cuda", 60)
    found, padded = set(), 0.0
    for first in range(0, len(lengths), shard):
        part = [int(length) for length in lengths[first : first + shard]]
        for batch in shapes.plan([length / audio.SAMPLE_RATE for length in part]):
            rows, samples = shapes.shape(len(batch), max(part[i] for i in batch))
            frames = upstream.frames(samples)
            assert frames is not None and frames % 8 == 0 and upstream.frames(samples - 1) == frames - 1
            assert rows >= len(batch) and rows * samples <= 300 * audio.SAMPLE_RATE
            found.add((rows, samples))
            padded += rows * samples
    assert len(found) <= 16
    assert padded < 1.5 * lengths.sum()


@pytest.mark.parametrize(("device", "on_grid"), [("cpu", False), ("cuda:1", True), ("mps", True)])
def test_a_cpu_gets_the_clips_own_lengths(upstream: Upstream, device: str, on_grid: bool) -> None:
    assert BatchShapes.of(upstream, device, 60).on_grid == on_grid
    assert not BatchShapes.of(registry.load("fbank"), device, 60).on_grid


def test_a_batch_is_padded_with_silence(upstream: Upstream) -> None:
    wavs = noise(16_161, 400, 9_000)
    shapes = BatchShapes(upstream, 60, on_grid=True)
    assert shapes.shape(3, 400) == (3, 2_640)
    batch = shapes.pad([*wavs, wavs[1], wavs[1]])
    assert batch.samples.shape == (6, 17_999 // 320 * 320 + 80)
    assert batch.lengths == (16_161, 400, 9_000, 400, 400, batch.samples.shape[1])
    assert torch.equal(batch.unpad()[2], torch.from_numpy(wavs[2]))
    assert float(batch.samples.abs().sum()) == pytest.approx(sum(float(abs(row).sum()) for row in batch.unpad()))


@pytest.mark.parametrize("kind", ["pooled", "frames"])
def test_features_are_those_of_a_cpu(
    upstream: Upstream, clips: list[Clip], kind: str, request: pytest.FixtureRequest
) -> None:
    extraction = Extraction(kind, dtype="float32")  # type: ignore[arg-type]
    expected = dict(extract(upstream, clips, extraction, "cpu"))
    request.getfixturevalue("_as_on_a_gpu")
    found = dict(extract(upstream, clips, extraction, "cpu"))
    assert found.keys() == expected.keys()
    for i, features in expected.items():
        torch.testing.assert_close(found[i], features, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("_as_on_a_gpu")
@pytest.mark.parametrize("kind", ["pooled", "frames"])
def test_operations_do_not_depend_on_the_number_of_clips(upstream: Upstream, kind: str) -> None:
    shapes = BatchShapes.of(upstream, "cpu", 60)
    extractor = Extractor(upstream, Extraction(kind), "cpu")  # type: ignore[arg-type]
    counts = []
    for clips in (8, 8, 64):  # the first one caches kernels
        batch = shapes.pad(noise(*[160_000 // clips * (3 + k % 3) // 4 for k in range(clips)]))
        with torch.inference_mode(), Operations() as operations:
            extractor.launch(batch, clips)
        counts.append(operations.count)
    assert counts[1] == counts[2]
