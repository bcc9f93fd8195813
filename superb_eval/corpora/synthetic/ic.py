"""Intent classification: commands with an action, an object and a location, each said in several ways."""

from __future__ import annotations

from itertools import product

import numpy as np

from .augment import Conditions, augment
from .espeak import Synthesiser
from .lexicon import ACTIONS, LOCATIONS, OBJECTS
from .listing import by_split
from .rows import Clips, Recording, Row, generator, row_seed
from .speaking import delivery, frame, say
from .voices import cast

PARTS: tuple[str, ...] = ("ic",)
COLUMNS = ("action", "object", "location", "text")
SPEAKERS = {"nano": {"train": 6, "dev": 2, "test": 2}, "mini": {"train": 26, "dev": 4, "test": 16}}
TAKES = {"nano": 8, "mini": 10}
CONDITIONS = Conditions(room_probability=0.3, t60=(0.1, 0.3), equaliser_db=2.0, snr_db=(15.0, 30.0))


def plan(size: str, seed: int) -> list[Row]:
    """Each speaker says the next intents of an endless list of all of them, shuffled."""
    intents = list(product(ACTIONS, OBJECTS, LOCATIONS))
    order = generator(seed, "ic order").permutation(len(intents))
    rows: list[Row] = []
    for split, voice in cast("in", SPEAKERS[size], generator(seed, "ic voices")):
        for take in range(TAKES[size]):
            action, thing, location = intents[order[len(rows) % len(intents)]]
            clip = f"{voice.name}_{take:02d}"
            ways = ACTIONS[action]
            way = ways[int(generator(seed, f"{clip} text").integers(len(ways)))]
            command = way.format(object=thing) + LOCATIONS[location]
            labels = dict(zip(COLUMNS, (action, thing, location, command), strict=True))
            rows.append(Row(clip, split, (voice,), command, row_seed(seed, clip), labels))
    return rows


def render(row: Row, synthesiser: Synthesiser) -> Recording:
    """The command between short silences."""
    rng = np.random.default_rng(row.seed)
    clip, _ = frame(say(row.text, row.voices[0], synthesiser, delivery(rng), row.seed), rng)
    return Recording(augment(clip, CONDITIONS, rng))


def files(clips: Clips) -> dict[str, bytes]:
    """The manifests."""
    return by_split(clips["ic"], COLUMNS)
