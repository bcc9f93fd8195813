"""Unlabelled speech for pretraining: many voices that no task uses, everyday sentences, all recording conditions."""

from __future__ import annotations

import numpy as np

from superb_eval.corpora.synthetic.augment import SAMPLE_RATE, Conditions, augment
from superb_eval.corpora.synthetic.clips import ClipPlan, ClipsByPart, RenderedClip, clip_seed, random_stream
from superb_eval.corpora.synthetic.espeak import Synthesiser
from superb_eval.corpora.synthetic.grammar import join_words
from superb_eval.corpora.synthetic.lexicon import EVERYDAY
from superb_eval.corpora.synthetic.manifests import manifests_by_split
from superb_eval.corpora.synthetic.synthesis import pad_with_silence, random_delivery, speak_trimmed
from superb_eval.corpora.synthetic.voices import random_voices

PARTS: tuple[str, ...] = ("unlabelled",)
VOICES = {"nano": 10, "mini": 600}
CLIPS_PER_VOICE = 4
DEV_FRACTION = 0.04  # of the voices, and at least one
WORDS = (6, 26)  # bounds of a uniform draw of the least number of words in a clip: 2 to 10 s
MAX_SAMPLES = 10 * SAMPLE_RATE  # the rest of a clip is cut off
PITCH_RANGE_SPREAD = 20.0  # standard deviation: wide, so that training covers emotional speech
CONDITIONS = Conditions(snr_db=(0.0, 25.0))


def plan_clips(size: str, seed: int) -> list[ClipPlan]:
    """Return four clips by each voice; the last voices are dev."""
    count = VOICES[size]
    train = count - max(1, round(DEV_FRACTION * count))
    voices = random_voices("un", count, random_stream(seed, "unlabelled voices"))
    plans = []
    for number, voice in enumerate(voices):
        for take in range(CLIPS_PER_VOICE):
            clip_id = f"{voice.name}_{take}"
            passage = _passage(random_stream(seed, f"{clip_id} text"))
            split = "train" if number < train else "dev"
            plans.append(ClipPlan(clip_id, split, (voice,), passage, clip_seed(seed, clip_id)))
    return plans


def _passage(rng: np.random.Generator) -> str:
    """Draw whole sentences until there are enough words."""
    least, count, sentences = int(rng.integers(*WORDS)), 0, []
    while count < least:
        words = EVERYDAY.sentence(rng)
        sentences.append(join_words(words))
        count += len(words)
    return ". ".join(sentences)


def render_clip(plan: ClipPlan, synthesiser: Synthesiser) -> RenderedClip:
    """Render the passage between short silences, under random conditions."""
    rng = np.random.default_rng(plan.seed)
    speech = speak_trimmed(plan.text, plan.voices[0], synthesiser, random_delivery(rng, PITCH_RANGE_SPREAD), plan.seed)
    clip, _ = pad_with_silence(speech, rng)
    return RenderedClip(augment(clip[:MAX_SAMPLES], CONDITIONS, rng))


def task_files(clips: ClipsByPart) -> dict[str, bytes]:
    """Return the manifests of train and dev, without labels."""
    return manifests_by_split(clips["unlabelled"])
