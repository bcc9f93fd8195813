"""Removes silence from speech as sox's effect `silence 1 0.1 0.1% -1 0.1 0.1%` does, without sox.

The SUPERB protocol applies that effect to all of VoxCeleb1 in ASV (s3prl `downstream/sv_voxceleb1/dataset.py`). By
sox's manual: everything before the first 0.1 s of sound is dropped; from then on, a silence of 0.1 s ends the sound, is
dropped itself, and the search for sound begins anew. A sample counts as sound if the root mean square of the 20 ms that
end there exceeds 0.1 % of full scale; the window is empty again after each silence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOW = 320
"""Samples in the window of the level: 20 ms at 16 kHz."""

PERIOD = 1600
"""Least number of samples of a sound, or of a silence: 0.1 s at 16 kHz."""

THRESHOLD = 0.001
"""Root mean square above which a sample counts as sound; 1 is full scale."""


def trim(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the segments of sound, concatenated [samples]; empty where all is silent.

    A sound of less than 0.1 s between silences is dropped with them; a silence of less than 0.1 s stays.
    """
    energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    segments, start = [], 0
    while (begin := _first_run(_is_sound(energy, start), start)) is not None:
        # The first `PERIOD` samples are known to be sound, so the search for silence starts after them.
        search_from = begin + PERIOD
        silence = _first_run(~_is_sound(energy, start)[search_from - start :], search_from)
        if silence is None:
            segments.append(samples[begin:])
            break
        segments.append(samples[begin:silence])
        start = silence + PERIOD
    return np.concatenate(segments) if segments else samples[:0]


def _is_sound(energy: NDArray[np.float64], start: int) -> NDArray[np.bool_]:
    """Return for each sample from `start` on whether it is sound; samples before `start` are ignored."""
    ends = np.arange(start + 1, len(energy))
    begins = np.maximum(ends - WINDOW, start)
    mask: NDArray[np.bool_] = energy[ends] - energy[begins] > WINDOW * THRESHOLD**2
    return mask


def _first_run(mask: NDArray[np.bool_], offset: int) -> int | None:
    """Return where the first run of `PERIOD` true values begins, plus `offset`; None where there is none."""
    edges = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    (begins,), (ends,) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    long = np.nonzero(ends - begins >= PERIOD)[0]
    return int(begins[long[0]]) + offset if len(long) else None
