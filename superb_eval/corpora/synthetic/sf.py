"""Slot filling: requests with IOB tags of the slots that their words fill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from superb_eval.corpora.synthetic import shared_sentences
from superb_eval.corpora.synthetic.clips import ClipPlan, ClipsByPart, RenderedClip, clip_seed, random_stream
from superb_eval.corpora.synthetic.espeak import Synthesiser
from superb_eval.corpora.synthetic.grammar import Word, join_words
from superb_eval.corpora.synthetic.lexicon import REQUESTS
from superb_eval.corpora.synthetic.manifests import manifests_by_split
from superb_eval.corpora.synthetic.voices import draw_speakers

PARTS: tuple[str, ...] = ("sf",)
COLUMNS = ("text_canonical", "iob_canonical")
SPEAKERS = {"nano": {"train": 6, "dev": 2, "test": 2}, "mini": {"train": 32, "dev": 8, "test": 16}}
TAKES = {"nano": 8, "mini": 10}


def plan_clips(size: str, seed: int) -> list[ClipPlan]:
    """Return `TAKES` requests by each speaker, cycling through the templates."""
    plans: list[ClipPlan] = []
    for split, voice in draw_speakers("sl", SPEAKERS[size], random_stream(seed, "sf voices"), shared_sentences.SPREAD):
        for take in range(TAKES[size]):
            clip_id = f"{voice.name}_{take:02d}"
            template = REQUESTS.templates[len(plans) * 7 % len(REQUESTS.templates)]
            words = REQUESTS.fill(template, random_stream(seed, f"{clip_id} text"))
            labels = dict(zip(COLUMNS, (join_words(words), " ".join(iob_tags(words))), strict=True))
            plans.append(ClipPlan(clip_id, split, (voice,), join_words(words), clip_seed(seed, clip_id), labels))
    return plans


def iob_tags(words: Sequence[Word]) -> Iterator[str]:
    """Yield `O` for a word of the template, `B-slot` for the first of a value and `I-slot` for its others."""
    previous = ""
    for word in words:
        yield f"{'I' if word.source == previous else 'B'}-{word.source}" if word.source else "O"
        previous = word.source


def render_clip(plan: ClipPlan, synthesiser: Synthesiser) -> RenderedClip:
    """Render as part `core` does, without its labels."""
    return RenderedClip(shared_sentences.render_clip(plan, synthesiser).audio)


def task_files(clips: ClipsByPart) -> dict[str, bytes]:
    """Return the manifests."""
    return manifests_by_split(clips["sf"], COLUMNS)
