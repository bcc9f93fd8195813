"""From a text to a waveform [samples] at 16 kHz that begins and ends with speech."""

from __future__ import annotations

import numpy as np

from .augment import SAMPLE_RATE, Wave
from .espeak import Delivery, Synthesiser
from .voices import Voice


def delivery(rng: np.random.Generator, spread: float = 10.0) -> Delivery:
    """How somebody happens to speak: 15 % slower or faster, a little higher or lower, more or less lively."""
    rate = round(170 * rng.uniform(0.85, 1.15))
    pitch, lively = np.clip(rng.normal(50, (5, spread)), 0, 100).round().astype(int).tolist()
    return Delivery(rate, pitch, lively)


def say(text: str, voice: Voice, synthesiser: Synthesiser, how: Delivery, seed: int) -> Wave:
    """Speak, and cut the silent edges off."""
    return cut_edges(synthesiser.speak(text, voice, how, seed).at_16k())


def cut_edges(wave: Wave) -> Wave:
    """Cut off what is below a hundredth of the peak at both ends."""
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.max(np.abs(wave)))
    return wave[loud[0] : loud[-1] + 1]


def place(speech: Wave, samples: int, rng: np.random.Generator) -> tuple[Wave, slice]:
    """Put speech at a random position of a clip that is silent elsewhere.

    Returns:
        The clip [samples], and where in it the speech is. Speech longer than the clip loses its end.
    """
    speech = speech[:samples]
    start = int(rng.integers(samples - len(speech) + 1))
    where = slice(start, start + len(speech))
    clip = np.zeros(samples)
    clip[where] = speech
    return clip, where


def frame(speech: Wave, rng: np.random.Generator, edges: tuple[float, float] = (0.05, 0.25)) -> tuple[Wave, int]:
    """Put silence of a random length (seconds) before and after.

    Returns:
        The clip, and the sample at which the speech begins.
    """
    before, after = (round(SAMPLE_RATE * seconds) for seconds in rng.uniform(*edges, 2))
    return np.concatenate([np.zeros(before), speech, np.zeros(after)]), before
