"""Intent classification: commands with an action, an object and a location, each in several wordings."""

from __future__ import annotations

from itertools import product

import numpy as np

from superb_eval.corpora.synthetic.augment import Conditions, augment
from superb_eval.corpora.synthetic.clips import ClipPlan, ClipsByPart, RenderedClip, clip_seed, random_stream
from superb_eval.corpora.synthetic.espeak import Synthesiser
from superb_eval.corpora.synthetic.lexicon import ACTIONS, LOCATIONS, OBJECTS
from superb_eval.corpora.synthetic.manifests import manifests_by_split
from superb_eval.corpora.synthetic.synthesis import pad_with_silence, random_delivery, speak_trimmed
from superb_eval.corpora.synthetic.voices import draw_speakers

PARTS: tuple[str, ...] = ("ic",)
COLUMNS = ("action", "object", "location", "text")
SPEAKERS = {"nano": {"train": 6, "dev": 2, "test": 2}, "mini": {"train": 26, "dev": 12, "test": 16}}
TAKES = {"nano": 8, "mini": 10}
CONDITIONS = Conditions(room_probability=0.3, t60=(0.1, 0.3), equaliser_db=2.0, snr_db=(15.0, 30.0))


def plan_clips(size: str, seed: int) -> list[ClipPlan]:
    """Return the commands: each speaker takes the next intents of a cycle through all of them, shuffled."""
    intents = list(product(ACTIONS, OBJECTS, LOCATIONS))
    order = random_stream(seed, "ic order").permutation(len(intents))
    plans: list[ClipPlan] = []
    for split, voice in draw_speakers("in", SPEAKERS[size], random_stream(seed, "ic voices")):
        for take in range(TAKES[size]):
            action, thing, location = intents[order[len(plans) % len(intents)]]
            clip_id = f"{voice.name}_{take:02d}"
            wordings = ACTIONS[action]
            wording = wordings[int(random_stream(seed, f"{clip_id} text").integers(len(wordings)))]
            command = wording.format(object=thing) + LOCATIONS[location]
            labels = dict(zip(COLUMNS, (action, thing, location, command), strict=True))
            plans.append(ClipPlan(clip_id, split, (voice,), command, clip_seed(seed, clip_id), labels))
    return plans


def render_clip(plan: ClipPlan, synthesiser: Synthesiser) -> RenderedClip:
    """Render the command between short silences."""
    rng = np.random.default_rng(plan.seed)
    speech = speak_trimmed(plan.text, plan.voices[0], synthesiser, random_delivery(rng), plan.seed)
    clip, _ = pad_with_silence(speech, rng)
    return RenderedClip(augment(clip, CONDITIONS, rng))


def task_files(clips: ClipsByPart) -> dict[str, bytes]:
    """Return the manifests."""
    return manifests_by_split(clips["ic"], COLUMNS)
