"""Phone-aligned speech, to measure without labels of a task what discovered units know: new voices, clean to noisy."""

from __future__ import annotations

import json

import numpy as np

from superb_eval.corpora.synthetic import augment
from superb_eval.corpora.synthetic.clips import ClipPlan, ClipsByPart, RenderedClip, clip_seed, random_stream
from superb_eval.corpora.synthetic.espeak import SAMPLE_RATE, Speech, Synthesiser
from superb_eval.corpora.synthetic.grammar import join_words
from superb_eval.corpora.synthetic.lexicon import READ
from superb_eval.corpora.synthetic.manifests import manifests_by_split
from superb_eval.corpora.synthetic.synthesis import pad_with_silence, random_delivery
from superb_eval.corpora.synthetic.voices import random_voices

PARTS: tuple[str, ...] = ("aligned",)
VOICES = {"nano": 8, "mini": 140}
"""Half of them are train, on which clusters are fitted; half test."""
CLIPS_PER_VOICE = {"nano": 4, "mini": 8}
CONDITIONS = augment.Conditions(room_probability=0.0, snr_db=(10.0, 30.0))
"""No rooms: reverberation reaches into the next phone."""


def plan_clips(size: str, seed: int) -> list[ClipPlan]:
    """Return some sentences by each voice."""
    voices = random_voices("al", VOICES[size], random_stream(seed, "aligned voices"))
    plans = []
    for number, voice in enumerate(voices):
        for take in range(CLIPS_PER_VOICE[size]):
            clip_id = f"{voice.name}_{take}"
            text = join_words(READ.sentence(random_stream(seed, f"{clip_id} text")))
            split = "train" if number < len(voices) // 2 else "test"
            plans.append(ClipPlan(clip_id, split, (voice,), text, clip_seed(seed, clip_id)))
    return plans


def render_clip(plan: ClipPlan, synthesiser: Synthesiser) -> RenderedClip:
    """Render the sentence between short silences, with the label `alignment`."""
    rng = np.random.default_rng(plan.seed)
    speech = synthesiser.speak(plan.text, plan.voices[0], random_delivery(rng), plan.seed)
    clip, before = pad_with_silence(speech.at_16k(), rng)
    return RenderedClip(augment.augment(clip, CONDITIONS, rng), {"alignment": _alignment(speech, before)})


def _alignment(speech: Speech, before: int) -> str:
    """Return JSON `[[phone, start, end], ...]`, in seconds, of speech that begins at sample `before` of its clip."""
    offset = before / augment.SAMPLE_RATE
    phones = [
        [phone.label.lstrip("',"), *(round(offset + sample / SAMPLE_RATE, 4) for sample in (phone.start, phone.end))]
        for phone in speech.phones
    ]
    return json.dumps(phones)


def task_files(clips: ClipsByPart) -> dict[str, bytes]:
    """Return the manifests of train and test, with alignments."""
    return manifests_by_split(clips["aligned"], ("alignment",))
