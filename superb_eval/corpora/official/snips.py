"""SF: Audio SNIPS in the layout that s3prl prepares, split by voice.

Source of the rules: s3prl `downstream/ctc` (`corpus/snips.py`, `snips.yaml`, `text.py`) and
`preprocess/snips_preprocess.py`.

`torchaudio.datasets.Snips` reads the same layout; it is not used since it reports neither bad lines nor missing files,
and returns the tags as one string.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus, Manifest, Utterance, bad_rows_message
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

FOLDER, TRANSCRIPTS, SLOTS = "SNIPS", "all.iob.snips.txt", "slots.txt"
SPEAKERS = {
    "train": ("Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"),
    "dev": ("Aditi", "Amy", "Geraint", "Nicole"),
    "test": ("Brian", "Emma", "Raveena", "Russell"),
}
FOLDERS = {"train": "train", "dev": "valid", "test": "test"}

LAYOUT = (
    f"{FOLDER}/{{{','.join(FOLDERS.values())}}}/<Speaker>-snips-<split>-<n>.wav, "
    f"{FOLDER}/{TRANSCRIPTS}, {FOLDER}/{SLOTS}"
)
ORIGIN = (
    "s3prl's preprocess/snips_preprocess.py makes this of the official release (github.com/aws-samples, Audio SNIPS)"
)

EXPECTED = {"train": 104_672, "dev": 2_800, "test": 2_800}
"""Utterances of a complete copy: 13,084 / 700 / 700 sentences by the voices of each split."""


class _Line(NamedTuple):
    words: list[str]
    slots: list[str]
    number: int


def present(root: Path) -> bool:
    """Return whether `root` holds Audio SNIPS as prepared, or part of it."""
    return (root / FOLDER).is_dir()


def load(root: Path, settings: CorpusSettings) -> Corpus:
    """Return the three splits in the order of their ids, with the label columns `text_canonical` and `iob_canonical`.

    The prepared lines name a slot for each word without marking where one value ends and the next of the same slot
    begins: consecutive words of one slot are one value, as in the protocol. Audio without a line, or by a voice of
    another split, is left out, as in the protocol; the corpus's notes count it.

    Raises:
        UserError: a file or folder is missing, or lines are bad; all are named.
    """
    del settings
    folder = root / FOLDER
    lines = _lines(folder / TRANSCRIPTS, set(_text(folder / SLOTS).split()))
    splits, notes = {}, []
    for split, split_folder in FOLDERS.items():
        splits[split], left_out = _split(folder, split, lines)
        if left_out:
            notes.append(
                f"{left_out} .wav of {split_folder} left out: no line in {TRANSCRIPTS}, or another split's voice"
            )
    return Corpus(name="Audio SNIPS", root=root, splits=splits, notes=tuple(notes), expected=EXPECTED)


def _split(folder: Path, split: str, lines: dict[str, _Line]) -> tuple[Manifest, int]:
    """Return one split, and the number of files left out."""
    paths = sorted(p for p in (folder / FOLDERS[split]).glob("*.wav") if not p.name.startswith("."))
    chosen = [p for p in paths if p.stem in lines and p.stem.startswith(SPEAKERS[split])]
    if not chosen:
        raise UserError(f"{folder / FOLDERS[split]}: no .wav of {', '.join(SPEAKERS[split])}. Is {LAYOUT} complete?")
    utterances = tuple(_utterance(path, lines[path.stem]) for path in chosen)
    return Manifest(split, utterances, folder / TRANSCRIPTS), len(paths) - len(chosen)


def _utterance(path: Path, line: _Line) -> Utterance:
    labels = {"text_canonical": " ".join(line.words), "iob_canonical": " ".join(_iob_tags(line.slots))}
    return Utterance(path.stem, Clip(path), path.stem.partition("-")[0], labels, line.number)


def _iob_tags(slots: list[str]) -> Iterator[str]:
    """Yield IOB tags: `O a a b` as `O B-a I-a B-b`."""
    for previous, slot in zip(["O", *slots], slots, strict=False):
        yield "O" if slot == "O" else f"{'I' if slot == previous else 'B'}-{slot}"


def _lines(path: Path, slot_names: set[str]) -> dict[str, _Line]:
    """Return the words and slots of each utterance, by its id."""
    lines, bad = {}, []
    for number, text in enumerate(_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        transcript, _, tags = text.strip().partition("\t")
        name, *words = transcript.split()
        slots = tags.split()
        problem = _problem(words, slots, slot_names)
        if problem:
            bad.append(f"line {number}: {name}: {problem}")
        # The first and last word are BOS and EOS; the last tag is the intent.
        lines[name] = _Line(words[1:-1], slots[1:-1], number)
    if bad:
        raise UserError(bad_rows_message(path, bad))
    return lines


def _problem(words: list[str], slots: list[str], slot_names: set[str]) -> str:
    if words[:1] != ["BOS"] or words[-1:] != ["EOS"]:
        return "expected ID BOS words EOS, a tab, O, a slot for each word, and the intent"
    if len(words) == 2:
        return "has an empty transcript"
    if len(words) != len(slots):
        return f"has {len(words) - 2} words and {max(0, len(slots) - 2)} slots"
    unknown = sorted(set(slots[1:-1]) - slot_names)
    return f"{SLOTS} doesn't hold {', '.join(unknown)}" if unknown else ""


def _text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file. Expected {LAYOUT}. {ORIGIN}.")
    return outside_files.read_text(path)
