"""KS: Speech Commands v0.01 as the SUPERB protocol splits it.

Source of the rules: s3prl `downstream/speech_commands` (`expert.py`, `dataset.py`). The SHA-1 of a
clip's speaker assigns it to train, to dev or to no split; the test set is a second archive, in twelve class folders.

`torchaudio.datasets.SPEECHCOMMANDS` is not used: it splits by the lists in the archive, tests on the part that the
protocol leaves out, and supports neither the test archive, nor the twelve classes, nor the background noise.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from downstreams.ks import KeywordCorpus
from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import NO_SPEAKER, Corpus, Manifest, Utterance
from superb_eval.errors import UserError

TRAIN = "speech_commands_v0.01"
TEST = "speech_commands_test_set_v0.01"
BACKGROUND = "_background_noise_"
UNKNOWN = "_unknown_"
SILENCE = "_silence_"
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
CLASSES = (*KEYWORDS, UNKNOWN, SILENCE)

LAYOUT = f"{TRAIN}/<word>/*.wav with {TRAIN}/{BACKGROUND}/*.wav, and {TEST}/<class>/*.wav (twelve class folders)"
ORIGIN = "Both archives are parts of Speech Commands v0.01 (Google, CC BY 4.0), which Google distributes free of charge"

EXPECTED = {"train": 51_088, "dev": 6_798, "test": 3_081}
"""Spoken clips of a complete copy in train and dev, all clips in test: as reported by users, not verified. The
51,094 often cited for train include the six background files."""

_DIVISOR = 2**27 - 1


def present(root: Path) -> bool:
    """Return whether `root` holds the official layout, or one of its two archives (`load` reports the missing one)."""
    return (root / TRAIN).is_dir() or (root / TEST).is_dir()


def load(root: Path, settings: KeywordCorpus) -> Corpus:
    """Return the three splits, with the label columns `keyword` (one of `CLASSES`) and `word`.

    For silence, `settings.silence_crops` fixed clips of 1 s are cropped from each background file for train, and as
    many others for dev. The protocol adds each file once and crops it at random at every access, which is impossible
    with features extracted once. Training draws classes equally often, so silence is as frequent as in the protocol.

    Raises:
        UserError: one of the two archives is missing, a folder is empty, or a background file is shorter than 1 s.
    """
    _check_archives(root)
    sources = {"train": root / TRAIN, "dev": root / TRAIN, "test": root / TEST}
    spoken = _spoken(root / TRAIN)
    noises = _wavs(root / TRAIN / BACKGROUND)
    splits = {split: [*spoken[split], *_silence(noises, split, settings.silence_crops)] for split in ("train", "dev")}
    splits["test"] = list(_test(root / TEST))
    _check_classes(root / TRAIN, splits["train"])
    crops = settings.silence_crops * len(noises)
    return Corpus(
        name="Speech Commands v0.01",
        root=root,
        splits={name: Manifest(name, tuple(rows), sources[name]) for name, rows in splits.items()},
        notes=(_deviation(settings.silence_crops, len(noises)),),
        expected={"train": EXPECTED["train"] + crops, "dev": EXPECTED["dev"] + crops, "test": EXPECTED["test"]},
    )


@cache
def split_of(speaker: str) -> str | None:
    """Return "train", "dev" or None (left out: the protocol tests on the other archive) for a clip's speaker.

    `speaker` is the part of the file's name before `_nohash_`, or the whole name where there is none.
    """
    # SHA-1 is the protocol's: no secret depends on it.
    hashed = int(hashlib.sha1(speaker.encode(), usedforsecurity=False).hexdigest(), 16)
    percent = hashed % (_DIVISOR + 1) * (100.0 / _DIVISOR)
    if percent < 10:
        return "dev"
    return None if percent < 20 else "train"


def _deviation(crops: int, files: int) -> str:
    return (
        f"silence is {crops} fixed 1 s crops of each of {files} background files in train and as many others in dev, "
        "where the protocol crops a file at every access; classes are drawn equally often, so its share is the same"
    )


def _check_archives(root: Path) -> None:
    for archive in (TRAIN, TEST):
        if not (root / archive).is_dir():
            raise UserError(
                f"{root}: has no folder {archive}. KS needs both archives: {LAYOUT}. {ORIGIN}; "
                "unpack each into its folder."
            )


def _check_classes(folder: Path, train: Iterable[Utterance]) -> None:
    missing = set(CLASSES) - {u.labels["keyword"] for u in train}
    if missing:
        names = ", ".join(c for c in CLASSES if c in missing)
        raise UserError(f"{folder}: no training clip of {names}. Is it complete? {ORIGIN}.")


def _spoken(folder: Path) -> dict[str, list[Utterance]]:
    """Return the clips with speech of train and dev, ordered by word and file."""
    splits: dict[str, list[Utterance]] = {"train": [], "dev": []}
    for word in _folders(folder):
        if word.name == BACKGROUND:
            continue
        for path in _wavs(word):
            split = split_of(re.sub(r"_nohash_.*$", "", path.name))
            if split:
                splits[split].append(_utterance(path, word.name))
    return splits


def _test(folder: Path) -> Iterator[Utterance]:
    """Yield the test clips, ordered by class and file."""
    present_classes = {f.name for f in _folders(folder)}
    if present_classes != set(CLASSES):
        missing, extra = sorted(set(CLASSES) - present_classes), sorted(present_classes - set(CLASSES))
        raise UserError(
            f"{folder}: expected the twelve class folders {', '.join(CLASSES)}; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(extra) or 'none'}. {ORIGIN}."
        )
    for name in sorted(CLASSES):
        for path in _wavs(folder / name):
            yield _utterance(path, name)


def _utterance(path: Path, word: str) -> Utterance:
    keyword = word if word in CLASSES else UNKNOWN
    speaker, hashed, _ = path.stem.partition("_nohash_")
    labels = {"keyword": keyword, "word": word}
    return Utterance(f"{word}/{path.stem}", Clip(path), speaker if hashed else NO_SPEAKER, labels)


def _silence(noises: list[Path], split: str, crops: int) -> Iterator[Utterance]:
    """Yield fixed crops of 1 s of each background file, drawn by a generator of its own for each split and file."""
    for path in noises:
        rate, length = _background(path)
        draws = np.random.default_rng([zlib.crc32(f"{split}/{path.name}".encode())])
        for k, first in enumerate(draws.integers(0, length - rate, size=crops, endpoint=True).tolist()):
            clip = Clip(path, first / rate, (first + rate) / rate)
            labels = {"keyword": SILENCE, "word": SILENCE}
            yield Utterance(f"{BACKGROUND}/{path.stem}-{split}-{k:04d}", clip, NO_SPEAKER, labels)


def _background(path: Path) -> tuple[int, int]:
    """Return the rate (Hz) and length (samples) of a background file."""
    header = audio.header(Clip(path))
    if header.samples < header.rate:
        raise UserError(
            f"{path}: lasts {header.seconds:.3f} s; a crop of silence needs 1 s. Copy the file again: {ORIGIN}."
        )
    return header.rate, header.samples


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _wavs(folder: Path) -> list[Path]:
    """Return the clips of a folder in order, without the `._*.wav` that some systems create next to copied files."""
    paths = sorted(p for p in folder.glob("*.wav") if not p.name.startswith("."))
    if not paths:
        raise UserError(f"{folder}: holds no .wav file. Is the archive unpacked completely? {ORIGIN}.")
    return paths
