"""A GPU gets few shapes, whatever the lengths of the clips; what is in a batch doesn't change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from superb_eval.data.audio import Clip
from superb_eval.data.padding import ALIGN_FRAMES
from superb_eval.pretraining import shapes
from superb_eval.pretraining.batches import Batches
from superb_eval.pretraining.data import Audio
from superb_eval.pretraining.recipe import DataSettings
from superb_eval.pretraining.shapes import ShapeGrid
from tests.pretraining import fifty_updates


def mixed(clips: int) -> Audio:
    """Commands of 1 s, read sentences of up to 16 s, and turns of a conversation, of no content."""
    rng = np.random.default_rng(0)
    read = np.where(rng.random(clips) < 0.85, rng.normal(14, 1.5, clips), rng.uniform(1, 14, clips))
    seconds = np.concatenate([np.ones(clips), read.clip(1, 16), rng.lognormal(1.2, 0.5, 2 * clips).clip(1, 16)])
    return Audio((Clip(Path("none.wav")),) * len(seconds), (seconds * 16_000).astype(np.int64))


def test_a_clip_fits_into_its_shape_where_its_last_frame_is_not_whole() -> None:
    for longest in range(69_190, 69_530, 10):  # 216 frames, which the grid has, and up to 319 further samples
        grid = ShapeGrid(longest)
        grid.add_epoch([(3, longest)])
        assert grid.shape(0, longest)[1] >= longest


@pytest.mark.parametrize("crop_seconds", [15.625, 16.0])
@pytest.mark.parametrize(("batch_seconds", "clips"), [(24.0, 1_000), (480.0, 8_000)])
def test_an_epoch_of_a_mixed_corpus_has_at_most_16_shapes(
    batch_seconds: float, clips: int, crop_seconds: float
) -> None:
    data = {"sources": [{"folder": "none"}], "crop_seconds": crop_seconds, "batch_seconds": batch_seconds}
    batches = Batches(mixed(clips), DataSettings.model_validate(data), 0)
    grid = ShapeGrid(int(batches.lengths.max()))
    steady = set()
    for epoch in range(3):
        plan = [(len(group), int(batches.lengths[group].max())) for group in batches._plan(epoch)]
        grid.add_epoch(plan)
        used = {grid.shape(epoch, longest) for _, longest in plan}
        assert len(used) <= 16 < len(set(plan))
        for rows, longest in plan:
            padded_rows, samples = grid.shape(epoch, longest)
            assert rows <= padded_rows and longest <= samples
            assert padded_rows * samples <= 1.3 * batch_seconds * 16_000
        padded = sum(np.prod(grid.shape(epoch, longest)) for _, longest in plan)
        assert padded <= 1.2 * sum(rows * longest for rows, longest in plan)
        steady = used
    assert len(steady) > 4


@pytest.mark.parametrize("world", [1, 2])
def test_batches_on_the_grid_hold_the_same_clips(world: int) -> None:
    plain, padded = (Batches(fifty_updates.audio(), fifty_updates.DATA, 0, grid=grid) for grid in (False, True))
    found = set()
    for number in range(24):
        for rank in range(world):
            one, other = (batches.load(number, 1, rank, world) for batches in (plain, padded))
            rows, samples = one.wavs.shape
            assert one[1:] == other[1:]
            assert torch.equal(other.wavs[:rows, :samples], one.wavs[:, : other.wavs.shape[1]])
            assert not other.wavs[rows:].any() and not other.wavs[:, samples:].any()
            assert shapes.frame_count(other.wavs.shape[1]) % ALIGN_FRAMES == 0
            found.add(tuple(other.wavs.shape))
    assert len(found) <= 8
    assert all(len({rows for rows, samples in found if samples == width}) <= 2 for _, width in found)


def test_shapes_do_not_depend_on_the_order_of_loading() -> None:
    forwards, backwards = (Batches(fifty_updates.audio(), fifty_updates.DATA, 0, grid=True) for _ in range(2))
    assert [forwards.load(k, 1).wavs.shape for k in range(40)] == [
        backwards.load(k, 1).wavs.shape for k in reversed(range(40))
    ][::-1]
