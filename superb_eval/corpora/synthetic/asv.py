"""Speaker verification: training on the speakers of part `core`, trials between speakers that training lacks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from superb_eval.corpora.synthetic import shared_sentences
from superb_eval.corpora.synthetic.clips import (
    ClipPlan,
    ClipsByPart,
    RenderedClip,
    SynthesisedClip,
    clip_seed,
    random_stream,
)
from superb_eval.corpora.synthetic.espeak import Synthesiser
from superb_eval.corpora.synthetic.grammar import join_words
from superb_eval.corpora.synthetic.lexicon import READ
from superb_eval.corpora.synthetic.manifests import manifest_csv, manifests_by_split, to_csv
from superb_eval.corpora.synthetic.voices import draw_speakers

PARTS: tuple[str, ...] = ("core", "asv")
SPEAKERS = {"nano": {"dev": 3, "test": 3}, "mini": {"dev": 24, "test": 24}}
TAKES = {"nano": 3, "mini": 8}
TRIAL_FILES = {"dev": "dev_trials.csv", "test": "trials.csv"}


def plan_clips(size: str, seed: int) -> list[ClipPlan]:
    """Return sentences like those of part `core`, by other speakers."""
    plans = []
    for split, voice in draw_speakers("sv", SPEAKERS[size], random_stream(seed, "asv voices"), shared_sentences.SPREAD):
        for take in range(TAKES[size]):
            clip_id = f"{voice.name}_{take:02d}"
            sentence = join_words(READ.sentence(random_stream(seed, f"{clip_id} text")))
            plans.append(ClipPlan(clip_id, split, (voice,), sentence, clip_seed(seed, clip_id)))
    return plans


def render_clip(plan: ClipPlan, synthesiser: Synthesiser) -> RenderedClip:
    """Render as part `core` does, without its labels."""
    return RenderedClip(shared_sentences.render_clip(plan, synthesiser).audio)


def task_files(clips: ClipsByPart) -> dict[str, bytes]:
    """Return the manifests, and the trials of dev and test."""
    tables = {"train.csv": manifest_csv(clips["core"]), **manifests_by_split(clips["asv"])}
    for split, name in TRIAL_FILES.items():
        tables[name] = _trials([clip for clip in clips["asv"] if clip.plan.split == split])
    return tables


def _trials(clips: Sequence[SynthesisedClip]) -> bytes:
    """All target pairs (one speaker), and as many non-target pairs (two speakers), drawn at random."""
    pairs = list(combinations(clips, 2))
    targets = [(a, b) for a, b in pairs if a.plan.speaker == b.plan.speaker]
    non_targets = [(a, b) for a, b in pairs if a.plan.speaker != b.plan.speaker]
    rng = np.random.default_rng([clip.plan.seed for clip in clips])
    chosen = rng.choice(len(non_targets), len(targets), replace=False)
    rows = [(a.plan.id, b.plan.id, 1) for a, b in targets]
    rows += [(non_targets[i][0].plan.id, non_targets[i][1].plan.id, 0) for i in sorted(chosen)]
    return to_csv(("enroll", "test", "target"), rows)
