"""Shapes of padded batches on a GPU: few of them, since kernels plan anew, and memory is laid out anew, for each."""

from __future__ import annotations

from collections.abc import Sequence

from superb_eval.data.padding import ALIGN_FRAMES, grid_frames

HOP, OVERLAP = 320, 80
"""Samples: a frame of HuBERT begins every `HOP`, and n frames cover n x HOP + OVERLAP."""

SHORT_FRAMES = 64
"""Shorter batches (1.3 s) have powers of two of frames: the grid's steps are small there, and such clips are few."""


class ShapeGrid:
    """The shapes of an epoch's batches: a few lengths, and for each of them one number of rows.

    The rows are those of the fullest batch of that length up to this epoch, so that they hardly change any more after
    the first epochs, and a resumed training has those of an uninterrupted one.
    """

    def __init__(self, longest: int) -> None:
        """`longest` is the longest crop in samples: no batch is padded further than its frames need."""
        self._longest = -(-_frames_to_hold(longest) // ALIGN_FRAMES) * ALIGN_FRAMES
        self._rows: list[dict[int, int]] = []

    def add_epoch(self, batches: Sequence[tuple[int, int]]) -> None:
        """Add an epoch by the clips and the longest clip in samples of each of its batches."""
        rows = dict(self._rows[-1]) if self._rows else {}
        for clips, longest in batches:
            frames = self._frames(longest)
            rows[frames] = max(clips, rows.get(frames, 0))
        self._rows.append(rows)

    def shape(self, epoch: int, longest: int, world: int = 1) -> tuple[int, int]:
        """Return rows and samples of each process's share of a batch whose longest clip has `longest` samples."""
        frames = self._frames(longest)
        return -(-self._rows[epoch][frames] // world), frames * HOP + OVERLAP

    def _frames(self, longest: int) -> int:
        frames = _frames_to_hold(longest)
        short = max(ALIGN_FRAMES, 1 << (frames - 1).bit_length())
        return min(short if frames <= SHORT_FRAMES else grid_frames(frames), self._longest)


def frame_count(samples: int) -> int:
    """Return the number of frames that HuBERT's convolutions output for a number of samples."""
    return max(0, (samples - OVERLAP) // HOP)


def _frames_to_hold(samples: int) -> int:
    """Return the number of frames whose samples hold so many: one more than they have, where the last is not whole."""
    return max(1, -(-(samples - OVERLAP) // HOP))
