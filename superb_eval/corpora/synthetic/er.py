"""Emotion recognition: four ways of speaking that differ in speed, pitch, liveliness and effort, in five folds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .augment import SAMPLE_RATE, Conditions, Wave, augment
from .espeak import Delivery, Synthesiser
from .grammar import text
from .lexicon import READ
from .listing import by_split
from .rows import Clips, Recording, Row, generator, row_seed
from .speaking import frame, say
from .voices import VoiceSpread, random_voices

PARTS: tuple[str, ...] = ("er",)
COLUMNS = ("emotion", "fold", "text")
FOLDS = 5
SPEAKERS = {"nano": 5, "mini": 50}
TAKES = {"nano": 1, "mini": 2}  # of each emotion by each speaker
CONDITIONS = Conditions(
    room_probability=0.3, t60=(0.1, 0.3), equaliser_db=0.0, filter_probability=0.0, snr_db=(15.0, 30.0)
)
SPREAD = VoiceSpread(tract=0.02, frequency=0.01)


class Manner(NamedTuple):
    """Means of what the synthesiser is told, see `Delivery`, and of the tilt that vocal effort gives the spectrum."""

    rate: float
    pitch: float
    range: float
    tilt: float  # dB per octave


MANNERS = {
    "neu": Manner(168, 48, 40, 0.0),
    "hap": Manner(185, 66, 85, 0.6),
    "ang": Manner(205, 54, 65, 1.8),
    "sad": Manner(138, 38, 15, -1.2),
}
TILT_SPREAD = 0.5  # standard deviation within an emotion, dB per octave


def plan(size: str, seed: int) -> list[Row]:
    """Every emotion by every speaker; a speaker is in one fold, and folds 4 and 5 stand in dev and test."""
    rows = []
    for number, voice in enumerate(random_voices("em", SPEAKERS[size], generator(seed, "er voices"), SPREAD)):
        fold = number % FOLDS + 1
        split = {4: "dev", 5: "test"}.get(fold, "train")
        for emotion in MANNERS:
            for take in range(TAKES[size]):
                clip = f"{voice.name}_{emotion}_{take}"
                sentence = text(READ.sentence(generator(seed, f"{clip} text")))
                labels = dict(zip(COLUMNS, (emotion, str(fold), sentence), strict=True))
                rows.append(Row(clip, split, (voice,), sentence, row_seed(seed, clip), labels))
    return rows


def render(row: Row, synthesiser: Synthesiser) -> Recording:
    """The sentence in the manner of its emotion, near-clean."""
    rng = np.random.default_rng(row.seed)
    speech = say(row.text, row.voices[0], synthesiser, deliver(row.labels["emotion"], rng), row.seed)
    clip, _ = frame(tilted(speech, rng.normal(MANNERS[row.labels["emotion"]].tilt, TILT_SPREAD)), rng)
    return Recording(augment(clip, CONDITIONS, rng))


def deliver(emotion: str, rng: np.random.Generator) -> Delivery:
    """A delivery near the mean of the emotion's."""
    mean = MANNERS[emotion]
    pitch, lively = np.clip(rng.normal((mean.pitch, mean.range), (5, 8)), 0, 100).round().astype(int).tolist()
    return Delivery(round(mean.rate * rng.uniform(0.88, 1.12)), pitch, lively)


def tilted(speech: Wave, decibels: float) -> Wave:
    """Raise the spectrum by so much per octave, about 1 kHz and from 100 Hz on."""
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE), 100.0) / 1_000.0)
    return np.asarray(np.fft.irfft(np.fft.rfft(speech) * 10 ** (decibels * octaves / 20), len(speech)))


def files(clips: Clips) -> dict[str, bytes]:
    """The manifests."""
    return by_split(clips["er"], COLUMNS)
