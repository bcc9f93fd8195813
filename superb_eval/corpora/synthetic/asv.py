"""Speaker verification: training on the speakers of `core`, trials between speakers that nothing was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from . import core
from .espeak import Synthesiser
from .files import to_csv
from .grammar import text
from .lexicon import READ
from .listing import by_split, table
from .rows import Clip, Clips, Recording, Row, generator, row_seed
from .voices import cast

PARTS: tuple[str, ...] = ("core", "asv")
SPEAKERS = {"nano": {"dev": 3, "test": 3}, "mini": {"dev": 8, "test": 16}}
TAKES = {"nano": 3, "mini": 8}
LISTS = {"dev": "dev_trials.csv", "test": "trials.csv"}


def plan(size: str, seed: int) -> list[Row]:
    """Sentences like those of `core` by other speakers."""
    rows = []
    for split, voice in cast("sv", SPEAKERS[size], generator(seed, "asv voices"), core.SPREAD):
        for take in range(TAKES[size]):
            clip = f"{voice.name}_{take:02d}"
            sentence = text(READ.sentence(generator(seed, f"{clip} text")))
            rows.append(Row(clip, split, (voice,), sentence, row_seed(seed, clip)))
    return rows


def render(row: Row, synthesiser: Synthesiser) -> Recording:
    """As in `core`, without labels."""
    return Recording(core.render(row, synthesiser).audio)


def files(clips: Clips) -> dict[str, bytes]:
    """The manifests, and the trials of dev and test."""
    tables = {"train.csv": table(clips["core"]), **by_split(clips["asv"])}
    for split, name in LISTS.items():
        tables[name] = _trials([clip for clip in clips["asv"] if clip.row.split == split])
    return tables


def _trials(clips: Sequence[Clip]) -> bytes:
    """All pairs of one speaker, and as many of two, drawn at random."""
    pairs = list(combinations(clips, 2))
    same = [(a, b) for a, b in pairs if a.row.speaker == b.row.speaker]
    other = [(a, b) for a, b in pairs if a.row.speaker != b.row.speaker]
    chosen = np.random.default_rng([clip.row.seed for clip in clips]).choice(len(other), len(same), replace=False)
    rows = [(a.row.id, b.row.id, 1) for a, b in same]
    rows += [(other[i][0].row.id, other[i][1].row.id, 0) for i in sorted(chosen)]
    return to_csv(("enroll", "test", "target"), rows)
