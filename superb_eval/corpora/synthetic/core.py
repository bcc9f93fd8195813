"""Read sentences that several tasks share: the speakers of PR and ASR differ between splits, those of SID do not."""

from __future__ import annotations

import numpy as np

from .augment import Conditions, augment
from .espeak import Synthesiser
from .grammar import text
from .lexicon import READ
from .phones import cmu
from .rows import Recording, Row, generator, row_seed
from .speaking import cut_edges, delivery, frame
from .voices import VoiceSpread, cast

SPEAKERS = {"nano": {"train": 4, "dev": 2, "test": 2}, "mini": {"train": 20, "dev": 4, "test": 6}}
TAKES = {"nano": 6, "mini": 20}
SPREAD = VoiceSpread(tract=0.07, frequency=0.04, height_db=1.5)  # wide: else small encoders know nobody apart
CONDITIONS = Conditions(
    room_probability=0.2, t60=(0.1, 0.3), equaliser_db=1.5, filter_probability=0.1, snr_db=(15.0, 30.0)
)


def plan(size: str, seed: int) -> list[Row]:
    """So many sentences by each speaker."""
    rows = []
    for split, voice in cast("co", SPEAKERS[size], generator(seed, "core voices"), SPREAD):
        for take in range(TAKES[size]):
            clip = f"{voice.name}_{take:02d}"
            sentence = text(READ.sentence(generator(seed, f"{clip} text")))
            labels = {"text": sentence.upper(), "take": str(take)}
            rows.append(Row(clip, split, (voice,), sentence, row_seed(seed, clip), labels))
    return rows


def render(row: Row, synthesiser: Synthesiser) -> Recording:
    """The sentence between short silences, with the label `phones`."""
    rng = np.random.default_rng(row.seed)
    speech = synthesiser.speak(row.text, row.voices[0], delivery(rng), row.seed)
    clip, _ = frame(cut_edges(speech.at_16k()), rng)
    return Recording(augment(clip, CONDITIONS, rng), {"phones": " ".join(cmu(speech.phones))})
