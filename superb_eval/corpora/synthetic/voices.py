"""Random speakers: espeak-ng variant files with their own vocal tract, pitch and roughness.

The format is described in espeak-ng's docs/voices.md; values are percentages of the language's own voice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_FORMANTS = 9  # 0 is the low-frequency component below the first formant, 6 to 8 are weak additions above the fifth


@dataclass(frozen=True)
class Formant:
    """Frequency, height (amplitude) and width of one resonance, in percent of the language's own."""

    frequency: int
    height: int
    width: int


@dataclass(frozen=True)
class Voice:
    """One speaker. `pitch` is the range of the fundamental frequency, in Hz."""

    name: str
    female: bool
    pitch: tuple[int, int]
    flutter: int
    roughness: int
    formants: tuple[Formant, ...]

    def variant(self) -> str:
        """Return the text of the espeak-ng variant file."""
        lines = ["language variant", f"name {self.name}", f"gender {'female' if self.female else 'male'}"]
        lines += [f"pitch {self.pitch[0]} {self.pitch[1]}", f"flutter {self.flutter}", f"roughness {self.roughness}"]
        lines += [f"formant {k} {f.frequency} {f.height} {f.width}" for k, f in enumerate(self.formants)]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class VoiceSpread:
    """How much voices differ: a wide spread makes speaker tasks easy, a narrow one hard."""

    tract: float = 0.035  # standard deviation of the vocal-tract scale
    frequency: float = 0.02  # of each formant's frequency on top of it
    height_db: float = 0.7


def random_voice(name: str, female: bool, rng: np.random.Generator, spread: VoiceSpread = VoiceSpread()) -> Voice:
    """Draw one speaker: a shorter vocal tract and a higher pitch if `female`; formants deviate one by one."""
    tract = (1.09 if female else 0.99) * (1 + spread.tract * rng.standard_normal())
    frequency = 100 * tract * (1 + spread.frequency * rng.standard_normal(_FORMANTS))
    height = 100 * 10 ** (spread.height_db * rng.standard_normal(_FORMANTS) / 20)
    width = rng.uniform(90, 130, _FORMANTS)
    median, swing = (rng.uniform(150, 225) if female else rng.uniform(80, 140)), rng.uniform(0.3, 0.6)
    base = median / (1 + 0.7 * swing)  # measured: the median pitch of a sentence lies at 70 % of the range
    return Voice(
        name=name,
        female=female,
        pitch=(round(base), round(base * (1 + swing))),
        flutter=int(rng.integers(0, 6)),
        roughness=int(rng.integers(0, 4)),
        formants=tuple(Formant(round(f), round(h), round(w)) for f, h, w in zip(frequency, height, width, strict=True)),
    )


def random_voices(
    prefix: str, count: int, rng: np.random.Generator, spread: VoiceSpread = VoiceSpread()
) -> list[Voice]:
    """Draw `count` speakers named ``<prefix>_f000``, ``<prefix>_m001``, ..., alternating between female and male."""
    return [
        random_voice(f"{prefix}_{'mf'[female]}{index:03d}", bool(female), rng, spread)
        for index, female in enumerate((np.arange(count) + 1) % 2)
    ]


def draw_speakers(
    prefix: str, counts: Mapping[str, int], rng: np.random.Generator, spread: VoiceSpread = VoiceSpread()
) -> list[tuple[str, Voice]]:
    """Draw `counts[split]` speakers for each split, none in two; return them with their splits."""
    splits = [split for split, count in counts.items() for _ in range(count)]
    return list(zip(splits, random_voices(prefix, len(splits), rng, spread), strict=True))
