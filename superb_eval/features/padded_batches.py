"""Which clips share a batch, and the shape that it is padded to: the clips' own on a CPU, one of a grid on a GPU."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from superb_eval.data import audio
from superb_eval.data.audio import Waveform
from superb_eval.data.padding import PaddedWavs, grid_frames, grid_rows
from superb_eval.runtime import devices
from upstreams.base import Upstream

GPU_FACTOR = 5
"""A GPU's batches on the grid are so many times as long as a CPU's: with less its arithmetic waits for launches."""

SHORTEST_FRAME = audio.SAMPLE_RATE
"""An upstream needs fewer samples than these for its first frame."""


@dataclass(frozen=True)
class BatchShapes:
    """How an upstream's batches are composed and padded on a device; at most `seconds` of padded audio in each.

    `on_grid`: lengths and numbers of rows come from `superb_eval.data.padding`'s grid, where a GPU computes features
    that depend neither on padding nor on further rows. A new shape costs there: kernels are chosen, memory is cut anew.
    """

    upstream: Upstream
    seconds: float
    on_grid: bool

    @classmethod
    def of(cls, upstream: Upstream, device: str, batch_seconds: float) -> BatchShapes:
        """Return the shapes for a device; `batch_seconds` is the bound on a CPU."""
        on_grid = devices.kind(device) != devices.CPU and upstream.padding_invariant
        return cls(upstream, batch_seconds * (GPU_FACTOR if on_grid else 1), on_grid)

    def plan(self, seconds: Sequence[float]) -> list[list[int]]:
        """Cut utterances, longest first, into batches whose padded length stays within the bound.

        An utterance longer than that is a batch of its own. Where the upstream can't count the valid frames of a
        padded utterance, only equal lengths share a batch.
        """
        mixed = self.upstream.frames(audio.SAMPLE_RATE) is not None
        batches: list[list[int]] = []
        for i in sorted(range(len(seconds)), key=lambda i: (-seconds[i], i)):
            batch = batches[-1] if batches else []
            fits = batch and (len(batch) + 1) * self._padded_seconds(seconds[batch[0]]) <= self.seconds
            if fits and (mixed or seconds[i] == seconds[batch[0]]):
                batch.append(i)
            else:
                batches.append([i])
        return batches

    def shape(self, clips: int, longest: int) -> tuple[int, int]:
        """Return the rows and the samples of a batch of clips, the longest of which has `longest` samples."""
        if not self.on_grid:
            return clips, longest
        samples = self._grid_samples(longest)
        full = int(self.seconds * audio.SAMPLE_RATE / samples)  # rows of all batches of this length but the last
        return min(grid_rows(clips), max(clips, full)), samples

    def pad(self, wavs: Sequence[Waveform], *, pinned: bool = False) -> PaddedWavs:
        """Return waveforms as a padded batch on the host. Further rows are silence, and count as long as they are.

        `pinned`: in memory that a GPU reads by itself.
        """
        rows, width = self.shape(len(wavs), max(map(len, wavs)))
        samples = torch.zeros(rows, width, pin_memory=pinned)
        for row, wav in zip(samples, wavs, strict=False):
            row[: len(wav)] = torch.from_numpy(wav)
        return PaddedWavs(samples, (*map(len, wavs), *[width] * (rows - len(wavs))))

    def _padded_seconds(self, seconds: float) -> float:
        return self._grid_samples(round(seconds * audio.SAMPLE_RATE)) / audio.SAMPLE_RATE if self.on_grid else seconds

    def _grid_samples(self, samples: int) -> int:
        """Return the length of waveforms that give a number of frames on the grid, and hold so many samples."""
        stride = self.upstream.card.stride
        frame = bisect_left(range(SHORTEST_FRAME), 1, key=lambda n: self.upstream.frames(n) or 0)  # of the first one
        return frame + stride * (grid_frames(1 + max(0, math.ceil((samples - frame) / stride))) - 1)
