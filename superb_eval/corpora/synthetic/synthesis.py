"""From text to a waveform [samples] at 16 kHz that begins and ends with speech, and its place in a clip."""

from __future__ import annotations

import numpy as np

from superb_eval.corpora.synthetic.augment import SAMPLE_RATE, Wave
from superb_eval.corpora.synthetic.espeak import Delivery, Synthesiser
from superb_eval.corpora.synthetic.voices import Voice


def random_delivery(rng: np.random.Generator, spread: float = 10.0) -> Delivery:
    """Draw a delivery: up to 15 % slower or faster; pitch and pitch range (standard deviation `spread`) around 50."""
    rate = round(170 * rng.uniform(0.85, 1.15))
    pitch, pitch_range = np.clip(rng.normal(50, (5, spread)), 0, 100).round().astype(int).tolist()
    return Delivery(rate, pitch, pitch_range)


def speak_trimmed(text: str, voice: Voice, synthesiser: Synthesiser, delivery: Delivery, seed: int) -> Wave:
    """Synthesise a text and trim the silent edges."""
    return trim_edges(synthesiser.speak(text, voice, delivery, seed).at_16k())


def trim_edges(wave: Wave) -> Wave:
    """Trim what is below a hundredth of the peak at both ends."""
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.max(np.abs(wave)))
    return wave[loud[0] : loud[-1] + 1]


def place_randomly(speech: Wave, samples: int, rng: np.random.Generator) -> tuple[Wave, slice]:
    """Place speech at a random position of a clip that is silent elsewhere.

    Returns:
        The clip [samples], and where in it the speech is. Speech longer than the clip loses its end.
    """
    speech = speech[:samples]
    start = int(rng.integers(samples - len(speech) + 1))
    where = slice(start, start + len(speech))
    clip = np.zeros(samples)
    clip[where] = speech
    return clip, where


def pad_with_silence(
    speech: Wave, rng: np.random.Generator, edges: tuple[float, float] = (0.05, 0.25)
) -> tuple[Wave, int]:
    """Add silence before and after, each of a length drawn between `edges` (seconds).

    Returns:
        The clip, and the sample at which the speech begins.
    """
    before, after = (round(SAMPLE_RATE * seconds) for seconds in rng.uniform(*edges, 2))
    return np.concatenate([np.zeros(before), speech, np.zeros(after)]), before
