"""Cuts silence out of speech as sox's effect `silence 1 0.1 0.1% -1 0.1 0.1%` does, without sox.

The SUPERB protocol hears all of VoxCeleb1 through that effect in ASV (s3prl `downstream/sv_voxceleb1/dataset.py`). By
sox's manual: what comes before the first 0.1 s of sound is dropped; from then on, a silence of 0.1 s ends the sound, is
dropped itself, and the search for sound begins anew. What is loud is decided at each sample by the root mean square of
the 20 ms that end there, against 0.1 % of full scale; the measure starts from nothing after each silence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOW = 320
"""Samples that the level is measured over: 20 ms at 16 kHz."""

PERIOD = 1600
"""Samples that sound, or silence, has to last: 0.1 s at 16 kHz."""

THRESHOLD = 0.001
"""Root mean square above which it is sound; 1 is full scale."""


def trim(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the stretches of sound [samples], one after the other; none where all is silent.

    A sound of less than 0.1 s between silences is dropped with them, a silence of less than 0.1 s stays.
    """
    energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    kept, start = [], 0
    while (begin := _run(_loud(energy, start), start)) is not None:
        # Sound is recognised once it has lasted; what it lasted by then is already known to be sound.
        searched = begin + PERIOD
        silence = _run(~_loud(energy, start)[searched - start :], searched)
        if silence is None:
            kept.append(samples[begin:])
            break
        kept.append(samples[begin:silence])
        start = silence + PERIOD
    return np.concatenate(kept) if kept else samples[:0]


def _loud(energy: NDArray[np.float64], start: int) -> NDArray[np.bool_]:
    """Say of each sample from `start` on whether it is sound; nothing before `start` is heard."""
    ends = np.arange(start + 1, len(energy))
    begins = np.maximum(ends - WINDOW, start)
    loud: NDArray[np.bool_] = energy[ends] - energy[begins] > WINDOW * THRESHOLD**2
    return loud


def _run(mask: NDArray[np.bool_], offset: int) -> int | None:
    """Return where the first `PERIOD` true values in a row begin, counted from `offset`; None where there are none."""
    edges = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    (begins,), (ends,) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    long = np.nonzero(ends - begins >= PERIOD)[0]
    return int(begins[long[0]]) + offset if len(long) else None
