"""Padded batches: waveforms in one tensor, the mask of valid frames, means over them, and a grid of shapes for GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

Samples = TypeVar("Samples", "Tensor", int)

ALIGN_FRAMES = 8
"""Padded frames on the grid are a multiple of it: fused attention reads masks in rows of 16 bytes."""

GRID_STEPS = 4
"""Grid lengths between one length and its double: a clip is padded by 9 % on average, 19 % at most."""


class PaddedWavs(NamedTuple):
    """Waveforms of a batch: `samples` [batch, samples] at 16 kHz, zero beyond each one's end.

    `lengths` [batch] are their samples, on the host, so that reading them waits for no device.
    """

    samples: Tensor
    lengths: tuple[int, ...]

    def unpad(self) -> list[Tensor]:
        """Return the waveforms [samples], as views."""
        return [row[:length] for row, length in zip(self.samples, self.lengths, strict=True)]


def pad_wavs(wavs: Sequence[Tensor]) -> PaddedWavs:
    """Return waveforms [samples] as a padded batch, by a number of operations that doesn't depend on theirs."""
    lengths = tuple(map(len, wavs))
    if len(set(lengths)) == 1:
        return PaddedWavs(torch.stack(list(wavs)), lengths)
    samples = wavs[0].new_zeros(len(wavs), max(lengths))
    valid = valid_mask(lengths_on(samples.device, lengths), samples.shape[1])
    return PaddedWavs(samples.masked_scatter(valid, torch.cat(list(wavs))), lengths)


def grid_frames(frames: int) -> int:
    """Return the least length on the grid that holds `frames`: a multiple of `ALIGN_FRAMES`, few of them."""
    return next(length for length in _grid(frames) if length >= frames)


def grid_rows(rows: int) -> int:
    """Return the least number of rows on the grid that holds `rows`: 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    power = 1 << max(0, rows - 1).bit_length()
    return 3 * power // 4 if power >= 4 and rows <= 3 * power // 4 else power


@cache
def _grid(longest: int) -> tuple[int, ...]:
    """Return the grid's lengths up to the first that holds `longest`."""
    lengths, step = [ALIGN_FRAMES], 0
    while lengths[-1] < longest:
        step += 1
        exact = ALIGN_FRAMES * 2 ** (step / GRID_STEPS)
        lengths.append(ALIGN_FRAMES * round(exact / ALIGN_FRAMES))
    return tuple(dict.fromkeys(lengths))


def lengths_on(device: torch.device, lengths: Sequence[int]) -> Tensor:
    """Return lengths [batch] as a tensor on a device, copied without waiting for what runs there."""
    return copy_to(torch.tensor(lengths), device)


def count_frames(samples: Samples, layers: Sequence[tuple[int, int]]) -> Samples:
    """Return the frames that unpadded convolutions, given by kernel and stride, output for numbers of samples."""
    for kernel, stride in layers:
        samples = (samples - kernel) // stride + 1
    return samples


def valid_mask(lengths: Tensor, frames: int) -> Tensor:
    """Return a mask [batch, frames], true on the first `lengths` [batch] frames of each utterance."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def copy_to(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device; a copy to CUDA is not waited for.

    One to an Apple GPU is, since it would read memory that may be freed by then (pytorch issue 189690).
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def mean_over_time(padded: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean over valid frames: [batch, frames, dim] -> [batch, dim]; padded ones may hold anything."""
    mask = valid_mask(lengths, padded.shape[1])[..., None]
    return torch.where(mask, padded, 0.0).sum(dim=1) / lengths[:, None]
