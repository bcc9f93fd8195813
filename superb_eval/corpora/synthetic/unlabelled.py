"""Speech without labels for training encoders: many voices that no task uses, everyday sentences, all conditions."""

from __future__ import annotations

import numpy as np

from .augment import SAMPLE_RATE, Conditions, augment
from .espeak import Synthesiser
from .grammar import text
from .lexicon import EVERYDAY
from .listing import by_split
from .rows import Clips, Recording, Row, generator, row_seed
from .speaking import delivery, frame, say
from .voices import random_voices

PARTS: tuple[str, ...] = ("unlabelled",)
VOICES = {"nano": 10, "mini": 600}
CLIPS_PER_VOICE = 4
DEV_SHARE = 0.04  # of the voices, and at least one
WORDS = (6, 26)  # at least so many in a clip, drawn evenly: 2 to 10 s
LONGEST = 10 * SAMPLE_RATE  # samples; the rest of a clip is cut off
LIVELY = 20.0  # standard deviation of the pitch range: wide, so that emotional speech is nothing new
CONDITIONS = Conditions(snr_db=(0.0, 25.0))


def plan(size: str, seed: int) -> list[Row]:
    """Four clips by each voice; the last voices are dev."""
    count = VOICES[size]
    train = count - max(1, round(DEV_SHARE * count))
    voices = random_voices("un", count, generator(seed, "unlabelled voices"))
    rows = []
    for number, voice in enumerate(voices):
        for take in range(CLIPS_PER_VOICE):
            clip = f"{voice.name}_{take}"
            words = _passage(generator(seed, f"{clip} text"))
            rows.append(Row(clip, "train" if number < train else "dev", (voice,), words, row_seed(seed, clip)))
    return rows


def _passage(rng: np.random.Generator) -> str:
    """Whole sentences until there are enough words."""
    wanted, count, sentences = int(rng.integers(*WORDS)), 0, []
    while count < wanted:
        words = EVERYDAY.sentence(rng)
        sentences.append(text(words))
        count += len(words)
    return ". ".join(sentences)


def render(row: Row, synthesiser: Synthesiser) -> Recording:
    """The passage in a few tenths of a second of silence, under random conditions."""
    rng = np.random.default_rng(row.seed)
    speech = say(row.text, row.voices[0], synthesiser, delivery(rng, LIVELY), row.seed)
    clip, _ = frame(speech, rng)
    return Recording(augment(clip[:LONGEST], CONDITIONS, rng))


def files(clips: Clips) -> dict[str, bytes]:
    """The manifests of train and dev, without labels."""
    return by_split(clips["unlabelled"])
