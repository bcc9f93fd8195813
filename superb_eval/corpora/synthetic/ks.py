"""Keyword spotting: single words of one second, in the twelve classes of SUPERB (Speech Commands v1)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np

from superb_eval.corpora.synthetic.augment import SAMPLE_RATE, Conditions, augment, background
from superb_eval.corpora.synthetic.clips import ClipPlan, ClipsByPart, RenderedClip, clip_seed, random_stream
from superb_eval.corpora.synthetic.espeak import Synthesiser
from superb_eval.corpora.synthetic.manifests import manifests_by_split
from superb_eval.corpora.synthetic.synthesis import place_randomly, random_delivery, speak_trimmed
from superb_eval.corpora.synthetic.voices import Voice, random_voices

PARTS: tuple[str, ...] = ("ks",)
COLUMNS: tuple[str, ...] = ("keyword", "word")
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN_WORDS = (
    "bed", "bird", "cat", "dog", "eight", "five", "four", "happy", "house", "marvin",
    "nine", "one", "seven", "sheila", "six", "three", "tree", "two", "wow", "zero",
)  # fmt: skip
UNKNOWN, SILENCE = "_unknown_", "_silence_"
CLASSES = (*KEYWORDS, UNKNOWN, SILENCE)
SPEAKERS = {"nano": {"train": 4, "dev": 2, "test": 2}, "mini": {"train": 28, "dev": 12, "test": 24}}
TAKES = {"nano": 1, "mini": 1}  # clips of each class by each speaker
SAMPLES = SAMPLE_RATE  # one second
# Noisy: at 0 to 18 dB a small supervised CNN reached 99 % accuracy, which leaves no room to compare encoders.
CONDITIONS = Conditions(snr_db=(5.0, 25.0))


def plan_clips(size: str, seed: int) -> list[ClipPlan]:
    """Return `TAKES` clips of every class by each speaker; a speaker is in one split only.

    Silence has no speaker; it has as many clips as any other class.
    """
    voices = iter(random_voices("ks", sum(SPEAKERS[size].values()), random_stream(seed, "ks voices")))
    words = [str(word) for word in random_stream(seed, "ks unknown words").permutation(UNKNOWN_WORDS)]
    plans: list[ClipPlan] = []
    for split, speakers in SPEAKERS[size].items():
        unknown = cycle(words)  # anew in every split, so that training contains all unknown words of the test
        for number, voice in enumerate(islice(voices, speakers)):
            for take in range(TAKES[size]):
                plans += _words(split, voice, take, next(unknown), seed)
                plans.append(_silence(split, number * TAKES[size] + take, seed))
    return plans


def _words(split: str, voice: Voice, take: int, unknown: str, seed: int) -> Iterator[ClipPlan]:
    for word in (*KEYWORDS, unknown):
        clip_id = f"{voice.name}_{word}_{take}"
        labels = {"keyword": word if word in KEYWORDS else UNKNOWN, "word": word}
        yield ClipPlan(clip_id, split, (voice,), word, clip_seed(seed, clip_id), labels)


def _silence(split: str, number: int, seed: int) -> ClipPlan:
    clip_id = f"ks_silence_{split}_{number:03d}"
    return ClipPlan(clip_id, split, (), "", clip_seed(seed, clip_id), {"keyword": SILENCE, "word": SILENCE})


def render_clip(plan: ClipPlan, synthesiser: Synthesiser) -> RenderedClip:
    """Render one second of the word, or of background noise."""
    rng = np.random.default_rng(plan.seed)
    if not plan.voices:
        return RenderedClip(background(SAMPLES, CONDITIONS, rng))
    speech = speak_trimmed(plan.text, plan.voices[0], synthesiser, random_delivery(rng), plan.seed)
    clip, _ = place_randomly(speech, SAMPLES, rng)
    return RenderedClip(augment(clip, CONDITIONS, rng))


def task_files(clips: ClipsByPart) -> dict[str, bytes]:
    """Return the manifests."""
    return manifests_by_split(clips["ks"], COLUMNS)
