"""Utterance mixing (WavLM: Chen et al., arXiv 2110.13900, section III.B): another speaker, or noise, behind a crop.

The targets stay those of the crop's own speaker, so that the network learns whom to follow. At most half of a crop is
mixed, which keeps its speaker the main one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superb_eval.pretraining.recipe import MixSettings

OtherSpeech = Callable[[np.random.Generator, int], NDArray[Any] | None]
"""Returns so many samples or fewer of another clip, drawn by the generator; None: it can't be read."""

STREAM = 3
"""Of a crop's seed: its masks have streams of their own."""


def mix(wave: NDArray[Any], seed: int, settings: MixSettings, other_speech: OtherSpeech) -> NDArray[Any]:
    """Return a crop [samples], with something mixed into it at the settings' probability; all draws are by its seed.

    16-bit audio stays so: sums beyond full scale are clipped.
    """
    rng = np.random.default_rng([seed, STREAM])
    if rng.random() >= settings.probability or len(wave) < 2:
        return wave
    count = int(rng.integers(1, len(wave) // 2 + 1))
    noisy = rng.random() < settings.noise
    added = coloured_noise(count, rng) if noisy else other_speech(rng, count)
    if added is None:
        return wave
    decibels = rng.uniform(*(settings.noise_db if noisy else settings.speech_db))
    return _add(wave, np.asarray(added, np.float64), int(rng.integers(len(wave) - len(added) + 1)), decibels)


def coloured_noise(samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return noise [samples] whose power falls with frequency to a power drawn from 0 (white) to 2 (brown)."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    slope = np.arange(1, len(spectrum) + 1) ** (-rng.uniform(0, 2) / 2)
    return np.fft.irfft(spectrum * slope, samples)


def _add(wave: NDArray[Any], added: NDArray[np.float64], start: int, decibels: float) -> NDArray[Any]:
    """Add at a ratio of the crop's mean power to that of what is added."""
    mixed = wave.astype(np.float64)
    power = np.mean(added**2)
    if power > 0:
        mixed[start : start + len(added)] += added * np.sqrt(np.mean(mixed**2) / power) * 10 ** (-decibels / 20)
    if wave.dtype.kind == "i":
        limits = np.iinfo(wave.dtype)
        mixed = np.clip(np.rint(mixed), limits.min, limits.max)
    return mixed.astype(wave.dtype)
