"""Keyword spotting: single words of one second, in the twelve classes of SUPERB (Speech Commands v1)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np

from .augment import SAMPLE_RATE, Conditions, augment, background
from .espeak import Synthesiser
from .listing import by_split
from .rows import Clips, Recording, Row, generator, row_seed
from .speaking import delivery, place, say
from .voices import Voice, random_voices

PARTS: tuple[str, ...] = ("ks",)
COLUMNS: tuple[str, ...] = ("keyword", "word")
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN_WORDS = (
    "bed", "bird", "cat", "dog", "eight", "five", "four", "happy", "house", "marvin",
    "nine", "one", "seven", "sheila", "six", "three", "tree", "two", "wow", "zero",
)  # fmt: skip
UNKNOWN, SILENCE = "_unknown_", "_silence_"
CLASSES = (*KEYWORDS, UNKNOWN, SILENCE)
SPEAKERS = {"nano": {"train": 4, "dev": 2, "test": 2}, "mini": {"train": 28, "dev": 6, "test": 24}}
TAKES = {"nano": 1, "mini": 1}  # clips of each class by each speaker
SAMPLES = SAMPLE_RATE  # one second
# At 0 to 18 dB, a small supervised CNN was right in 99 %: noisier, so that nothing reaches the ceiling.
CONDITIONS = Conditions(snr_db=(5.0, 25.0))


def plan(size: str, seed: int) -> list[Row]:
    """The clips of the task: for each speaker every class, as often as the size says; a speaker is in one split only.

    Silence has no speaker; there is as much of it as of any other class.
    """
    voices = iter(random_voices("ks", sum(SPEAKERS[size].values()), generator(seed, "ks voices")))
    words = [str(word) for word in generator(seed, "ks unknown words").permutation(UNKNOWN_WORDS)]
    rows: list[Row] = []
    for split, speakers in SPEAKERS[size].items():
        unknown = cycle(words)  # afresh in every split, so that the test's unknown words were all heard in training
        for number, voice in enumerate(islice(voices, speakers)):
            for take in range(TAKES[size]):
                rows += _words(split, voice, take, next(unknown), seed)
                rows.append(_silence(split, number * TAKES[size] + take, seed))
    return rows


def _words(split: str, voice: Voice, take: int, unknown: str, seed: int) -> Iterator[Row]:
    for word in (*KEYWORDS, unknown):
        clip = f"{voice.name}_{word}_{take}"
        labels = {"keyword": word if word in KEYWORDS else UNKNOWN, "word": word}
        yield Row(clip, split, (voice,), word, row_seed(seed, clip), labels)


def _silence(split: str, number: int, seed: int) -> Row:
    clip = f"ks_silence_{split}_{number:03d}"
    return Row(clip, split, (), "", row_seed(seed, clip), {"keyword": SILENCE, "word": SILENCE})


def render(row: Row, synthesiser: Synthesiser) -> Recording:
    """One second of the word, or of background."""
    rng = np.random.default_rng(row.seed)
    if not row.voices:
        return Recording(background(SAMPLES, CONDITIONS, rng))
    speech = say(row.text, row.voices[0], synthesiser, delivery(rng), row.seed)
    clip, _ = place(speech, SAMPLES, rng)
    return Recording(augment(clip, CONDITIONS, rng))


def files(clips: Clips) -> dict[str, bytes]:
    """The manifests."""
    return by_split(clips["ks"], COLUMNS)
