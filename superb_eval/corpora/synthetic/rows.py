"""What a part plans (one row for each clip, known before any audio exists), what it renders, and what is written."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from .augment import Wave
from .voices import Voice

NOBODY = "_none_"  # the speaker of clips in which nobody speaks


@dataclass(frozen=True)
class Row:
    """One clip to render.

    `voices` holds the one speaker, or none, or those of a mixture. `seed` (31 bits) decides everything that is not in
    the other fields: how the text is spoken and what is done to the sound. `labels` are columns of the manifest.
    """

    id: str
    split: str
    voices: tuple[Voice, ...]
    text: str
    seed: int
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def speaker(self) -> str:
        """The names of the voices, joined by ``+``."""
        return "+".join(voice.name for voice in self.voices) or NOBODY

    def path(self, part: str) -> str:
        """Where the clip lies, relative to the corpus."""
        return f"audio/{part}/{self.speaker}/{self.id}.flac"


@dataclass(frozen=True)
class Recording:
    """One rendered clip: `audio` [samples] in [-1, 1] at 16 kHz, and the labels that only its rendering reveals."""

    audio: Wave
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Clip:
    """One clip as it was written: `sha256` of the bytes of its file, duration in seconds, all of its labels."""

    row: Row
    path: str
    sha256: str
    duration_s: float
    labels: Mapping[str, str]


Clips: TypeAlias = Mapping[str, Sequence[Clip]]  # by part, in the order of its plan


def generator(seed: int, name: str) -> np.random.Generator:
    """An independent stream of random numbers for each seed and name."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def row_seed(seed: int, clip: str) -> int:
    """A seed of 31 bits for one clip, which does not depend on the clips around it."""
    return int(generator(seed, clip).integers(2**31))
