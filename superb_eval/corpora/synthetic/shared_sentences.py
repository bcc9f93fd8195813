"""Part `core`: sentences that PR, ASR, SID, ASV and QbE share. Their speakers differ between the planned splits."""

from __future__ import annotations

import numpy as np

from superb_eval.corpora.synthetic.augment import Conditions, augment
from superb_eval.corpora.synthetic.clips import ClipPlan, RenderedClip, clip_seed, random_stream
from superb_eval.corpora.synthetic.espeak import Synthesiser
from superb_eval.corpora.synthetic.grammar import join_words
from superb_eval.corpora.synthetic.lexicon import READ
from superb_eval.corpora.synthetic.phones import to_cmu
from superb_eval.corpora.synthetic.synthesis import pad_with_silence, random_delivery, trim_edges
from superb_eval.corpora.synthetic.voices import VoiceSpread, draw_speakers

SPEAKERS = {"nano": {"train": 4, "dev": 2, "test": 2}, "mini": {"train": 24, "dev": 6, "test": 10}}
TAKES = {"nano": 6, "mini": 18}
SPREAD = VoiceSpread(tract=0.07, frequency=0.04, height_db=1.5)  # wide: else small encoders can't separate speakers
CONDITIONS = Conditions(
    room_probability=0.2, t60=(0.1, 0.3), equaliser_db=1.5, filter_probability=0.1, snr_db=(15.0, 30.0)
)


def plan_clips(size: str, seed: int) -> list[ClipPlan]:
    """Return `TAKES` sentences by each speaker."""
    plans = []
    for split, voice in draw_speakers("co", SPEAKERS[size], random_stream(seed, "core voices"), SPREAD):
        for take in range(TAKES[size]):
            clip_id = f"{voice.name}_{take:02d}"
            sentence = join_words(READ.sentence(random_stream(seed, f"{clip_id} text")))
            labels = {"text": sentence.upper(), "take": str(take)}
            plans.append(ClipPlan(clip_id, split, (voice,), sentence, clip_seed(seed, clip_id), labels))
    return plans


def render_clip(plan: ClipPlan, synthesiser: Synthesiser) -> RenderedClip:
    """Render the sentence between short silences, with the label `phones`."""
    rng = np.random.default_rng(plan.seed)
    speech = synthesiser.speak(plan.text, plan.voices[0], random_delivery(rng), plan.seed)
    clip, _ = pad_with_silence(trim_edges(speech.at_16k()), rng)
    return RenderedClip(augment(clip, CONDITIONS, rng), {"phones": " ".join(to_cmu(speech.phones))})
