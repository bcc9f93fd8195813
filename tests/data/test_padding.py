from __future__ import annotations

import pytest
import torch

from superb_eval.data.padding import ALIGN_FRAMES, grid_frames, grid_rows, mean_over_time, pad_wavs


@pytest.mark.parametrize("lengths", [(5, 5), (3, 7, 1), (4,)])
def test_padding_keeps_every_sample_and_adds_zeros(lengths: tuple[int, ...]) -> None:
    wavs = [torch.arange(1.0, n + 1) for n in lengths]
    padded = pad_wavs(wavs)
    assert padded.samples.shape == (len(lengths), max(lengths)) and padded.lengths == lengths
    assert all(torch.equal(a, b) for a, b in zip(padded.unpad(), wavs, strict=True))
    assert padded.samples.count_nonzero() == sum(lengths)


def test_grid_lengths_are_few_aligned_and_close() -> None:
    grid = {frames: grid_frames(frames) for frames in range(1, 1001)}
    assert all(length >= frames and length % ALIGN_FRAMES == 0 for frames, length in grid.items())
    assert all(length < 1.25 * frames + ALIGN_FRAMES for frames, length in grid.items())
    assert len({length for frames, length in grid.items() if frames >= 50}) <= 20


def test_grid_rows_are_powers_of_two_and_their_means() -> None:
    assert [grid_rows(n) for n in (1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33)] == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48]


def test_a_mean_over_time_leaves_out_whatever_padding_holds() -> None:
    padded = torch.tensor([[[1.0], [3.0]], [[5.0], [torch.nan]]])
    assert mean_over_time(padded, torch.tensor([2, 1])).tolist() == [[2.0], [5.0]]
