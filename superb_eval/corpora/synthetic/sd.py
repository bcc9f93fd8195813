"""Speaker diarisation: conversations of two speakers with overlapping turns, whose times are known to the sample."""

from __future__ import annotations

import json
from typing import TypeAlias

import numpy as np

from superb_eval.corpora.synthetic.augment import SAMPLE_RATE, Conditions, Wave, augment
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
from superb_eval.corpora.synthetic.manifests import SPLITS, manifests_by_split
from superb_eval.corpora.synthetic.synthesis import random_delivery, speak_trimmed
from superb_eval.corpora.synthetic.voices import VoiceSpread, draw_speakers

Turn: TypeAlias = tuple[str, float, float]  # speaker, start, end, in seconds
PARTS: tuple[str, ...] = ("sd",)
SPEAKERS = {"nano": {"train": 6, "dev": 4, "test": 4}, "mini": {"train": 24, "dev": 10, "test": 24}}
MIXTURES = {"nano": {"train": 6, "dev": 3, "test": 3}, "mini": {"train": 40, "dev": 20, "test": 40}}
TURNS = 6
GAP = (-1.2, 0.5)  # seconds between the end of a turn and the start of the next; below 0 they overlap
LEVEL_DB = 2.5  # the largest difference between the levels of the two speakers
CONDITIONS = Conditions(room_probability=0.3, t60=(0.1, 0.3), equaliser_db=3.0, snr_db=(15.0, 30.0))


def plan_clips(size: str, seed: int) -> list[ClipPlan]:
    """Return conversations of random pairs of speakers, who alternate for six turns."""
    plans: list[ClipPlan] = []
    speakers = draw_speakers("di", SPEAKERS[size], random_stream(seed, "sd voices"), VoiceSpread(tract=0.05))
    for split, count in MIXTURES[size].items():
        voices = [voice for speaker_split, voice in speakers if speaker_split == split]
        for number in range(count):
            clip_id = f"di_{split}_{number:02d}"
            rng = random_stream(seed, f"{clip_id} text")
            first, second = rng.choice(len(voices), 2, replace=False)
            turns = "\n".join(join_words(READ.sentence(rng)) for _ in range(TURNS))
            plans.append(ClipPlan(clip_id, split, (voices[first], voices[second]), turns, clip_seed(seed, clip_id)))
    return plans


def render_clip(plan: ClipPlan, synthesiser: Synthesiser) -> RenderedClip:
    """Render the conversation, with the label `turns`: JSON of [speaker, start, end] in seconds."""
    rng = np.random.default_rng(plan.seed)
    tracks, turns = render_conversation(plan, synthesiser, rng)
    return RenderedClip(augment(tracks.sum(axis=0), CONDITIONS, rng), {"turns": json.dumps(turns)})


def render_conversation(plan: ClipPlan, synthesiser: Synthesiser, rng: np.random.Generator) -> tuple[Wave, list[Turn]]:
    """Return the clean tracks [speakers, samples], exactly zero where a speaker is silent, and all turns.

    A turn begins a random gap after the end of the one before, but never before the end of its speaker's own last turn.
    """
    ratio = 10 ** (rng.uniform(-LEVEL_DB, LEVEL_DB) / 20)
    waves = [
        speak_trimmed(sentence, plan.voices[i % 2], synthesiser, random_delivery(rng), plan.seed + i)
        * (ratio if i % 2 else 1.0)
        for i, sentence in enumerate(plan.text.split("\n"))
    ]
    starts, ends = [], [0, 0]  # `ends`: of each speaker's last turn
    for i, wave in enumerate(waves):
        gap = round(SAMPLE_RATE * rng.uniform(*GAP)) if i else SAMPLE_RATE // 5
        starts.append(max(ends[i % 2], (max(ends) if i else 0) + gap))
        ends[i % 2] = starts[i] + len(wave)
    tracks, turns = np.zeros((2, max(ends) + SAMPLE_RATE // 5)), []
    for i, (start, wave) in enumerate(zip(starts, waves, strict=True)):
        tracks[i % 2, start : start + len(wave)] = wave
        turns.append((plan.voices[i % 2].name, start / SAMPLE_RATE, (start + len(wave)) / SAMPLE_RATE))
    return tracks, turns


def task_files(clips: ClipsByPart) -> dict[str, bytes]:
    """Return the manifests and an RTTM file for each split."""
    turns = {f"{split}.rttm": _rttm(clips, split) for split in SPLITS}
    return {**manifests_by_split(clips["sd"]), **turns}


def _rttm(clips: ClipsByPart, split: str) -> bytes:
    chosen = [clip for clip in clips["sd"] if clip.plan.split == split]
    return "".join(line for clip in chosen for line in _rttm_lines(clip)).encode()


def _rttm_lines(clip: SynthesisedClip) -> list[str]:
    return [
        f"SPEAKER {clip.plan.id} 1 {start:.4f} {end - start:.4f} <NA> <NA> {speaker} <NA> <NA>\n"
        for speaker, start, end in json.loads(clip.labels["turns"])
    ]
