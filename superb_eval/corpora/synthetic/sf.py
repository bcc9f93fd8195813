"""Slot filling: requests, and which of their words fill which slot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import core
from .espeak import Synthesiser
from .grammar import Word, text
from .lexicon import REQUESTS
from .listing import by_split
from .rows import Clips, Recording, Row, generator, row_seed
from .voices import cast

PARTS: tuple[str, ...] = ("sf",)
COLUMNS = ("text_canonical", "iob_canonical")
SPEAKERS = {"nano": {"train": 6, "dev": 2, "test": 2}, "mini": {"train": 32, "dev": 4, "test": 16}}
TAKES = {"nano": 8, "mini": 10}


def plan(size: str, seed: int) -> list[Row]:
    """Each speaker says so many requests; templates take turns."""
    rows: list[Row] = []
    for split, voice in cast("sl", SPEAKERS[size], generator(seed, "sf voices"), core.SPREAD):
        for take in range(TAKES[size]):
            clip = f"{voice.name}_{take:02d}"
            template = REQUESTS.templates[len(rows) * 7 % len(REQUESTS.templates)]
            words = REQUESTS.fill(template, generator(seed, f"{clip} text"))
            labels = dict(zip(COLUMNS, (text(words), " ".join(tags(words))), strict=True))
            rows.append(Row(clip, split, (voice,), text(words), row_seed(seed, clip), labels))
    return rows


def tags(words: Sequence[Word]) -> Iterator[str]:
    """`O` for a word of the template, `B-slot` for the first of a value and `I-slot` for its others."""
    before = ""
    for word in words:
        yield f"{'I' if word.source == before else 'B'}-{word.source}" if word.source else "O"
        before = word.source


def render(row: Row, synthesiser: Synthesiser) -> Recording:
    """As in `core`, without its labels."""
    return Recording(core.render(row, synthesiser).audio)


def files(clips: Clips) -> dict[str, bytes]:
    """The manifests."""
    return by_split(clips["sf"], COLUMNS)
