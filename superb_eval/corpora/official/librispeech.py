"""ASR: LibriSpeech's three splits of the protocol, read from FLAC files and each chapter's transcripts.

Source of the rules: s3prl `downstream/asr` (`dataset.py`, `config.yaml`).

`torchaudio.datasets.LIBRISPEECH` is not used: it opens a chapter's transcripts again for each utterance, and
reports a bad line or a missing file only when it reaches it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus, Manifest, Utterance, bad_rows_message
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

FOLDER = "LibriSpeech"
SPLITS = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}

LAYOUT = f"{FOLDER}/{{{','.join(SPLITS.values())}}}/<speaker>/<chapter>/*.flac with <speaker>-<chapter>.trans.txt"
ORIGIN = "LibriSpeech (CC BY 4.0) is distributed free of charge on openslr.org/12"

EXPECTED = {"train": 28_539, "dev": 2_703, "test": 2_620}
"""Utterances of a complete copy, as reported by users, not verified."""


def present(root: Path) -> bool:
    """Return whether `root` holds LibriSpeech, or part of it."""
    return (root / FOLDER).is_dir()


def load(root: Path, settings: CorpusSettings) -> Corpus:
    """Return the three splits in the order of speakers, chapters and utterances, with the label column `text`.

    An utterance's `line` is the one in its chapter's file of transcripts.

    Raises:
        UserError: a split is missing, or lines or files are; all are named.
    """
    del settings
    splits = {split: _split(root / FOLDER, split) for split in SPLITS}
    return Corpus(name=FOLDER, root=root, splits=splits, expected=EXPECTED)


def transcripts(utterance: Utterance) -> Path:
    """Return the file that holds an utterance's transcript."""
    chapter = utterance.clip.path.parent
    return chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"


def _split(folder: Path, split: str) -> Manifest:
    source = folder / SPLITS[split]
    if not source.is_dir():
        raise UserError(f"{folder}: has no folder {SPLITS[split]}. Expected {LAYOUT}. {ORIGIN}.")
    bad: list[str] = []
    utterances = [u for chapter in sorted(source.glob("*/*/")) for u in _chapter(chapter, bad)]
    if bad:
        raise UserError(bad_rows_message(source, bad))
    if not utterances:
        raise UserError(f"{source}: holds no utterance. Expected {LAYOUT}. {ORIGIN}.")
    return Manifest(split, tuple(utterances), source)


def _chapter(folder: Path, bad: list[str]) -> Iterator[Utterance]:
    """Yield the utterances of one chapter; its problems are appended to `bad`."""
    path = folder / f"{folder.parent.name}-{folder.name}.trans.txt"
    audio = {p.stem for p in folder.glob("*.flac") if not p.name.startswith(".")}
    lines = outside_files.read_text(path).splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        name, _, text = line.strip().partition(" ")
        if name not in audio:
            bad.append(f"{path.name} line {number}: the chapter has no {name}.flac")
        elif not text:
            bad.append(f"{path.name} line {number}: {name} has an empty transcript")
        else:
            labels = {"text": " ".join(text.upper().split())}
            yield Utterance(name, Clip(folder / f"{name}.flac"), folder.parent.name, labels, number)
    untranscribed = sorted(audio - {line.split(" ")[0] for line in lines})
    bad += [f"{folder.parent.name}/{folder.name}/{name}.flac: {path.name} has no line for it" for name in untranscribed]
