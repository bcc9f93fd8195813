"""Query by example: words spoken alone, and the sentences of `core` by other speakers in which they may occur."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .augment import Conditions, augment
from .espeak import Synthesiser
from .files import to_csv
from .lexicon import READ
from .listing import table
from .rows import Clip, Clips, Recording, Row, generator, row_seed
from .speaking import delivery, frame, say
from .voices import cast

PARTS: tuple[str, ...] = ("core", "qbe")
SPLITS = ("dev", "test")
SPEAKERS = {"nano": {"dev": 1, "test": 1}, "mini": {"dev": 2, "test": 6}}
CONDITIONS = Conditions(snr_db=(0.0, 15.0))  # harder than those of the documents
LISTS = ("deed", "quality", "many", "place")  # whose words are asked for: long enough to be told from others


def plan(size: str, seed: int) -> list[Row]:
    """Each word by each speaker of its split; every other word is in dev, the rest in test."""
    words = {split: [w for name in LISTS for w in READ.lists[name][i::2]] for i, split in enumerate(SPLITS)}
    rows = []
    for split, voice in cast("qu", SPEAKERS[size], generator(seed, "qbe voices")):
        for word in words[split]:
            clip = f"{voice.name}_{word}"
            rows.append(Row(clip, split, (voice,), word, row_seed(seed, clip), {"split": split, "word": word}))
    return rows


def render(row: Row, synthesiser: Synthesiser) -> Recording:
    """The word, with hardly any silence around it."""
    rng = np.random.default_rng(row.seed)
    clip, _ = frame(say(row.text, row.voices[0], synthesiser, delivery(rng), row.seed), rng, (0.02, 0.05))
    return Recording(augment(clip, CONDITIONS, rng))


def files(clips: Clips) -> dict[str, bytes]:
    """Queries, documents, and every pair of a split with whether the one is spoken in the other."""
    documents = [_document(clip) for clip in clips["core"] if clip.row.split in SPLITS]
    pairs = [
        (query.row.split, query.row.id, document.row.id, int(query.row.text in document.row.text.split()))
        for query in clips["qbe"]
        for document in documents
        if query.row.split == document.row.split
    ]
    return {
        "queries.csv": table(clips["qbe"], ("split", "word")),
        "docs.csv": table(documents, ("split", "text")),
        "pairs.csv": to_csv(("split", "query", "doc", "label"), pairs),
    }


def _document(clip: Clip) -> Clip:
    return replace(clip, labels={**clip.labels, "split": clip.row.split})
