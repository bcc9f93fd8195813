"""Speaker diarisation: two speakers who take turns and often speak at once, and who speaks when by the sample."""

from __future__ import annotations

import json
from typing import TypeAlias

import numpy as np

from .augment import SAMPLE_RATE, Conditions, Wave, augment
from .espeak import Synthesiser
from .grammar import text
from .lexicon import READ
from .listing import SPLITS, by_split
from .rows import Clip, Clips, Recording, Row, generator, row_seed
from .speaking import delivery, say
from .voices import VoiceSpread, cast

Turn: TypeAlias = tuple[str, float, float]  # who, from, until, in seconds
PARTS: tuple[str, ...] = ("sd",)
SPEAKERS = {"nano": {"train": 6, "dev": 4, "test": 4}, "mini": {"train": 24, "dev": 10, "test": 24}}
MIXTURES = {"nano": {"train": 6, "dev": 3, "test": 3}, "mini": {"train": 40, "dev": 10, "test": 40}}
TURNS = 6
GAP = (-1.2, 0.5)  # seconds between the end of a turn and the beginning of the next; below 0 both speak
LEVEL_DB = 2.5  # by how much the second speaker is at most louder or softer
CONDITIONS = Conditions(room_probability=0.3, t60=(0.1, 0.3), equaliser_db=3.0, snr_db=(15.0, 30.0))


def plan(size: str, seed: int) -> list[Row]:
    """Random pairs of speakers; each takes every other of six turns."""
    rows: list[Row] = []
    everybody = cast("di", SPEAKERS[size], generator(seed, "sd voices"), VoiceSpread(tract=0.05))
    for split, count in MIXTURES[size].items():
        voices = [voice for where, voice in everybody if where == split]
        for number in range(count):
            clip = f"di_{split}_{number:02d}"
            rng = generator(seed, f"{clip} text")
            first, second = rng.choice(len(voices), 2, replace=False)
            turns = "\n".join(text(READ.sentence(rng)) for _ in range(TURNS))
            rows.append(Row(clip, split, (voices[first], voices[second]), turns, row_seed(seed, clip)))
    return rows


def render(row: Row, synthesiser: Synthesiser) -> Recording:
    """The conversation, with the label `turns`: JSON of [speaker, start, end] in seconds."""
    rng = np.random.default_rng(row.seed)
    tracks, turns = converse(row, synthesiser, rng)
    return Recording(augment(tracks.sum(axis=0), CONDITIONS, rng), {"turns": json.dumps(turns)})


def converse(row: Row, synthesiser: Synthesiser, rng: np.random.Generator) -> tuple[Wave, list[Turn]]:
    """The clean tracks [speakers, samples], exactly zero where a speaker is silent, and all turns.

    A turn begins a random gap after the end of the one before, but never before its speaker has ended his last one.
    """
    ratio = 10 ** (rng.uniform(-LEVEL_DB, LEVEL_DB) / 20)
    spoken = [
        say(sentence, row.voices[i % 2], synthesiser, delivery(rng), row.seed + i) * (ratio if i % 2 else 1.0)
        for i, sentence in enumerate(row.text.split("\n"))
    ]
    starts, free = [], [0, 0]
    for i, wave in enumerate(spoken):
        gap = round(SAMPLE_RATE * rng.uniform(*GAP)) if i else SAMPLE_RATE // 5
        starts.append(max(free[i % 2], (max(free) if i else 0) + gap))
        free[i % 2] = starts[i] + len(wave)
    tracks, turns = np.zeros((2, max(free) + SAMPLE_RATE // 5)), []
    for i, (start, wave) in enumerate(zip(starts, spoken, strict=True)):
        tracks[i % 2, start : start + len(wave)] = wave
        turns.append((row.voices[i % 2].name, start / SAMPLE_RATE, (start + len(wave)) / SAMPLE_RATE))
    return tracks, turns


def files(clips: Clips) -> dict[str, bytes]:
    """The manifests and an RTTM file for each split."""
    turns = {f"{split}.rttm": _rttm(clips, split) for split in SPLITS}
    return {**by_split(clips["sd"]), **turns}


def _rttm(clips: Clips, split: str) -> bytes:
    chosen = [clip for clip in clips["sd"] if clip.row.split == split]
    return "".join(line for clip in chosen for line in _lines(clip)).encode()


def _lines(clip: Clip) -> list[str]:
    return [
        f"SPEAKER {clip.row.id} 1 {start:.4f} {end - start:.4f} <NA> <NA> {speaker} <NA> <NA>\n"
        for speaker, start, end in json.loads(clip.labels["turns"])
    ]
