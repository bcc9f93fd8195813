"""Query by example: isolated words, and the sentences of part `core` by other speakers in which they may occur."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from superb_eval.corpora.synthetic.augment import Conditions, augment
from superb_eval.corpora.synthetic.clips import (
    ClipPlan,
    ClipsByPart,
    RenderedClip,
    SynthesisedClip,
    clip_seed,
    random_stream,
)
from superb_eval.corpora.synthetic.espeak import Synthesiser
from superb_eval.corpora.synthetic.lexicon import READ
from superb_eval.corpora.synthetic.manifests import manifest_csv, to_csv
from superb_eval.corpora.synthetic.synthesis import pad_with_silence, random_delivery, speak_trimmed
from superb_eval.corpora.synthetic.voices import draw_speakers

PARTS: tuple[str, ...] = ("core", "qbe")
SPLITS = ("dev", "test")
SPEAKERS = {"nano": {"dev": 1, "test": 1}, "mini": {"dev": 2, "test": 6}}
CONDITIONS = Conditions(snr_db=(0.0, 15.0))  # harder than those of the documents
LISTS = ("deed", "quality", "many", "place")  # of the queries: words long enough to be distinct


def plan_clips(size: str, seed: int) -> list[ClipPlan]:
    """Return each word by each speaker of its split; every other word is in dev, the rest in test."""
    words = {split: [w for name in LISTS for w in READ.lists[name][i::2]] for i, split in enumerate(SPLITS)}
    plans = []
    for split, voice in draw_speakers("qu", SPEAKERS[size], random_stream(seed, "qbe voices")):
        for word in words[split]:
            clip_id = f"{voice.name}_{word}"
            labels = {"split": split, "word": word}
            plans.append(ClipPlan(clip_id, split, (voice,), word, clip_seed(seed, clip_id), labels))
    return plans


def render_clip(plan: ClipPlan, synthesiser: Synthesiser) -> RenderedClip:
    """Render the word, with very short silences around it."""
    rng = np.random.default_rng(plan.seed)
    speech = speak_trimmed(plan.text, plan.voices[0], synthesiser, random_delivery(rng), plan.seed)
    clip, _ = pad_with_silence(speech, rng, (0.02, 0.05))
    return RenderedClip(augment(clip, CONDITIONS, rng))


def task_files(clips: ClipsByPart) -> dict[str, bytes]:
    """Return queries, documents, and every pair of a split with whether the query is spoken in the document."""
    documents = [_document(clip) for clip in clips["core"] if clip.plan.split in SPLITS]
    pairs = [
        (query.plan.split, query.plan.id, document.plan.id, int(query.plan.text in document.plan.text.split()))
        for query in clips["qbe"]
        for document in documents
        if query.plan.split == document.plan.split
    ]
    return {
        "queries.csv": manifest_csv(clips["qbe"], ("split", "word")),
        "docs.csv": manifest_csv(documents, ("split", "text")),
        "pairs.csv": to_csv(("split", "query", "doc", "label"), pairs),
    }


def _document(clip: SynthesisedClip) -> SynthesisedClip:
    return replace(clip, labels={**clip.labels, "split": clip.plan.split})
