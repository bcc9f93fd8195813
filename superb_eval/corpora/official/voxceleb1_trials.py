"""ASV: VoxCeleb1, trained on its development archive and tested on the trials of VoxCeleb1-O.

Source of the rules: s3prl `downstream/sv_voxceleb1/dataset.py`. Training uses every file of the development archive;
a line of the list of trials is `<1|0> <speaker>/<video>/<file>.wav <speaker>/<video>/<file>.wav`.

The protocol has no dev set: it chooses among ten checkpoints by the test trials, which gives the record's historical
score. A strict score needs trials of speakers outside train and test, so `settings.dev_speakers` of the development
speakers are held out: those whose names have the smallest SHA-256. Each has 250 target and 250 non-target trials,
drawn with a fixed seed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from downstreams.asv import VerificationCorpus
from superb_eval.corpora.official.voxceleb1 import FOLDER, find_wav, wav_folders
from superb_eval.corpora.trials import drop_short_utterances
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus, Manifest, Trial, Utterance, bad_rows_message
from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

LISTS = ("voxceleb1_test_v2.txt", "veri_test.txt", "veri_test2.txt")
"""The protocol's list; that of VoxCeleb's authors; and their later, cleaned list."""

LAYOUT = f"{FOLDER}/{{dev,test}}/wav/<speaker>/<video>/*.wav with {FOLDER}/{LISTS[0]}"
ORIGIN = (
    "The Visual Geometry Group of Oxford distributes VoxCeleb1 on request: the archives vox1_dev_wav and "
    f"vox1_test_wav, each to be unpacked into its own folder; {LISTS[0]} comes with s3prl (downstream/sv_voxceleb1)"
)

PER_SPEAKER = 250
"""Trials of each kind per held-out speaker: with 40 speakers 20,000, as many as in s3prl's unused dev list."""

EXPECTED_TEST = 4_715
"""Utterances that the list names; the number in train depends on settings, and published counts are unverified."""

_LINE = re.compile(r"([01])\s+(\S+\.wav)\s+(\S+\.wav)")


def present(root: Path) -> bool:
    """Return whether `root` holds VoxCeleb1, or part of it."""
    return (root / FOLDER).is_dir()


def load(root: Path, settings: VerificationCorpus) -> Corpus:
    """Return train, dev and test; the latter two hold the utterances of their trials.

    Raises:
        UserError: list or audio are missing, lines of the list are bad (all are named), or speakers are too few.
    """
    dev_folder, test_folder = wav_folders(root)
    by_speaker = _development(dev_folder)
    held_out = held_out_speakers(list(by_speaker), settings.dev_speakers)
    if len(by_speaker) < len(held_out) + 2:
        raise UserError(
            f"{dev_folder}: {len(by_speaker)} speakers are too few to hold {len(held_out)} out. Is it complete?"
        )
    train = Manifest("train", tuple(u for s in by_speaker if s not in held_out for u in by_speaker[s]), dev_folder)
    train, notes = drop_short_utterances(train, settings)
    path = _trial_list(root)
    return Corpus(
        name="VoxCeleb1",
        root=root,
        splits={"train": train, "dev": _dev(by_speaker, held_out, dev_folder), "test": _test(path, test_folder)},
        notes=(_deviation(len(held_out), len(by_speaker)), *notes, *_other_list(path)),
        expected={"test": EXPECTED_TEST},
    )


def held_out_speakers(speakers: Sequence[str], count: int) -> list[str]:
    """Return the speakers held out for dev: those whose names have the smallest SHA-256, in the order of names."""
    ranked = sorted(speakers, key=lambda speaker: hashlib.sha256(speaker.encode()).hexdigest())
    return sorted(ranked[:count])


def draw_trials(by_speaker: Mapping[str, Sequence[str]], per_speaker: int, seed: int = 0) -> list[Trial]:
    """Return distinct trials among utterance ids: up to `per_speaker` of each kind (target, non-target) per speaker.

    Raises:
        ValueError: there are fewer than two speakers.
    """
    if len(by_speaker) < 2:
        raise ValueError(f"trials need two speakers, found {len(by_speaker)}")
    draws = np.random.default_rng(seed)
    trials: dict[Trial, None] = {}
    for speaker, own in by_speaker.items():
        same = list(combinations(own, 2))
        chosen = [same[k] for k in draws.permutation(len(same))[:per_speaker]]
        trials |= {Trial(first, second, True): None for first, second in chosen}
        others = [u for other, theirs in by_speaker.items() if other != speaker for u in theirs]
        pairs = zip(
            draws.integers(len(own), size=per_speaker), draws.integers(len(others), size=per_speaker), strict=True
        )
        trials |= {Trial(own[a], others[b], False): None for a, b in pairs}
    return list(trials)


def _development(folder: Path) -> dict[str, list[Utterance]]:
    """Return the utterances of the development archive by speaker, in the order of names."""
    speakers = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    by_speaker = {p.name: [_utterance(wav, folder) for wav in sorted(p.glob("*/*.wav"))] for p in speakers}
    empty = [name for name, utterances in by_speaker.items() if not utterances]
    if empty or not by_speaker:
        raise UserError(
            f"{folder}: no .wav file of {', '.join(empty[:12]) or 'any speaker'}. Expected {LAYOUT}. {ORIGIN}."
        )
    return by_speaker


def _utterance(wav: Path, folder: Path) -> Utterance:
    name = wav.relative_to(folder)
    return Utterance(name.as_posix(), Clip(wav), name.parts[0])


def _dev(by_speaker: Mapping[str, Sequence[Utterance]], held_out: Sequence[str], source: Path) -> Manifest:
    trials = draw_trials({speaker: [u.id for u in by_speaker[speaker]] for speaker in held_out}, PER_SPEAKER)
    used = {name for trial in trials for name in (trial.enroll, trial.test)}
    utterances = tuple(u for speaker in held_out for u in by_speaker[speaker] if u.id in used)
    return Manifest("dev", utterances, source, tuple(trials))


def _trial_list(root: Path) -> Path:
    for name in LISTS:
        for folder in (root / FOLDER, root):
            if (folder / name).is_file():
                return folder / name
    raise UserError(f"{root / FOLDER}: has no {LISTS[0]}, the list of trials. Expected {LAYOUT}. {ORIGIN}.")


def _test(path: Path, folder: Path) -> Manifest:
    trials: list[Trial] = []
    bad: list[str] = []
    used: dict[str, Path | None] = {}
    for number, line in enumerate(outside_files.read_text(path).splitlines(), start=1):
        match = _LINE.fullmatch(line.strip())
        names = (match[2], match[3]) if match else ()
        wavs = {name: used.get(name) or find_wav([folder], name) for name in names}
        missing = [name for name, wav in wavs.items() if wav is None]
        if match is None or missing:
            bad.append(f"line {number}: {_line_problem(line, missing)}")
            continue
        used |= wavs
        trials.append(Trial(match[2], match[3], match[1] == "1"))
    if bad:
        raise UserError(f"{bad_rows_message(path, bad)}\n{ORIGIN}.")
    utterances = tuple(Utterance(name, Clip(wav), name.split("/")[0]) for name, wav in sorted(used.items()) if wav)
    return Manifest("test", utterances, path, tuple(trials))


def _line_problem(line: str, missing: Sequence[str]) -> str:
    if missing:
        return f"test/wav has no {' and no '.join(missing)}"
    return f"'{line}' is not of the form '<1|0> id10270/<video>/<file>.wav id10300/<video>/<file>.wav'"


def _deviation(held_out: int, speakers: int) -> str:
    return (
        f"{held_out} of {speakers} development speakers are held out of training: {2 * PER_SPEAKER} trials of each, "
        "drawn with a fixed seed, are the dev set, which the protocol lacks; the historical score is that of the "
        "protocol's choice of checkpoint, the best one on the test trials"
    )


def _other_list(path: Path) -> tuple[str, ...]:
    return () if path.name == LISTS[0] else (f"trials of {path.name} where the protocol uses {LISTS[0]}",)
