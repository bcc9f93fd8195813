"""Emotion recognition: four emotions that differ in rate, pitch, pitch range and vocal effort, in five folds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from superb_eval.corpora.synthetic.augment import SAMPLE_RATE, Conditions, Wave, augment
from superb_eval.corpora.synthetic.clips import ClipPlan, ClipsByPart, RenderedClip, clip_seed, random_stream
from superb_eval.corpora.synthetic.espeak import Delivery, Synthesiser
from superb_eval.corpora.synthetic.grammar import join_words
from superb_eval.corpora.synthetic.lexicon import READ
from superb_eval.corpora.synthetic.manifests import manifests_by_split
from superb_eval.corpora.synthetic.synthesis import pad_with_silence, speak_trimmed
from superb_eval.corpora.synthetic.voices import VoiceSpread, random_voices

PARTS: tuple[str, ...] = ("er",)
COLUMNS = ("emotion", "fold", "text")
FOLDS = 5
SPEAKERS = {"nano": 5, "mini": 50}
TAKES = {"nano": 1, "mini": 2}  # of each emotion by each speaker
CONDITIONS = Conditions(
    room_probability=0.3, t60=(0.1, 0.3), equaliser_db=0.0, filter_probability=0.0, snr_db=(15.0, 30.0)
)
SPREAD = VoiceSpread(tract=0.02, frequency=0.01)


class Prosody(NamedTuple):
    """Means of an emotion's delivery (see `Delivery`), and of the spectral tilt that vocal effort causes."""

    rate: float
    pitch: float
    range: float
    tilt: float  # dB per octave


PROSODY = {
    "neu": Prosody(168, 48, 40, 0.0),
    "hap": Prosody(185, 66, 85, 0.6),
    "ang": Prosody(205, 54, 65, 1.8),
    "sad": Prosody(138, 38, 15, -1.2),
}
TILT_SPREAD = 0.5  # standard deviation within an emotion, dB per octave


def plan_clips(size: str, seed: int) -> list[ClipPlan]:
    """Return every emotion by every speaker; a speaker is in one fold; fold 4 is dev and fold 5 is test."""
    plans = []
    for number, voice in enumerate(random_voices("em", SPEAKERS[size], random_stream(seed, "er voices"), SPREAD)):
        fold = number % FOLDS + 1
        split = {4: "dev", 5: "test"}.get(fold, "train")
        for emotion in PROSODY:
            for take in range(TAKES[size]):
                clip_id = f"{voice.name}_{emotion}_{take}"
                sentence = join_words(READ.sentence(random_stream(seed, f"{clip_id} text")))
                labels = dict(zip(COLUMNS, (emotion, str(fold), sentence), strict=True))
                plans.append(ClipPlan(clip_id, split, (voice,), sentence, clip_seed(seed, clip_id), labels))
    return plans


def render_clip(plan: ClipPlan, synthesiser: Synthesiser) -> RenderedClip:
    """Render the sentence with the prosody of its emotion, near-clean."""
    rng = np.random.default_rng(plan.seed)
    emotion = plan.labels["emotion"]
    delivery = random_emotional_delivery(emotion, rng)
    speech = speak_trimmed(plan.text, plan.voices[0], synthesiser, delivery, plan.seed)
    clip, _ = pad_with_silence(tilt_spectrum(speech, rng.normal(PROSODY[emotion].tilt, TILT_SPREAD)), rng)
    return RenderedClip(augment(clip, CONDITIONS, rng))


def random_emotional_delivery(emotion: str, rng: np.random.Generator) -> Delivery:
    """Draw a delivery around the means of the emotion."""
    mean = PROSODY[emotion]
    pitch, pitch_range = np.clip(rng.normal((mean.pitch, mean.range), (5, 8)), 0, 100).round().astype(int).tolist()
    return Delivery(round(mean.rate * rng.uniform(0.88, 1.12)), pitch, pitch_range)


def tilt_spectrum(speech: Wave, decibels: float) -> Wave:
    """Tilt the spectrum by `decibels` per octave around 1 kHz, from 100 Hz on."""
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE), 100.0) / 1_000.0)
    return np.asarray(np.fft.irfft(np.fft.rfft(speech) * 10 ** (decibels * octaves / 20), len(speech)))


def task_files(clips: ClipsByPart) -> dict[str, bytes]:
    """Return the manifests."""
    return manifests_by_split(clips["er"], COLUMNS)
