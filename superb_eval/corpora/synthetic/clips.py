"""A clip of the synthetic corpus in its three forms: planned (before any audio exists), rendered, and written."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from superb_eval.corpora.synthetic.augment import Wave
from superb_eval.corpora.synthetic.voices import Voice
from superb_eval.data.manifest import NO_SPEAKER


@dataclass(frozen=True)
class ClipPlan:
    """One clip to render.

    `voices` holds the one speaker, or none, or those of a mixture. `seed` (31 bits) determines everything that is not
    in the other fields: how the text is spoken and how the audio is augmented. `labels` are columns of the manifest.
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
        return "+".join(voice.name for voice in self.voices) or NO_SPEAKER

    def path(self, part: str) -> str:
        """Return the path of the clip's file, relative to the corpus folder."""
        return f"audio/{part}/{self.speaker}/{self.id}.flac"


@dataclass(frozen=True)
class RenderedClip:
    """A clip's `audio` [samples] in [-1, 1] at 16 kHz, and the labels that only rendering yields (phones, turns)."""

    audio: Wave
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SynthesisedClip:
    """A clip as written: `sha256` of the bytes of its file, duration in seconds, all of its labels."""

    plan: ClipPlan
    path: str
    sha256: str
    duration_s: float
    labels: Mapping[str, str]


ClipsByPart: TypeAlias = Mapping[str, Sequence[SynthesisedClip]]
"""Clips by part, in the order in which the part plans them."""


def random_stream(seed: int, name: str) -> np.random.Generator:
    """Return an independent stream of random numbers for each seed and name."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def clip_seed(seed: int, clip_id: str) -> int:
    """Return a seed of 31 bits for one clip, which does not depend on the other clips."""
    return int(random_stream(seed, clip_id).integers(2**31))
