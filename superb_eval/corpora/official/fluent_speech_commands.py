"""IC: Fluent Speech Commands by the tables that lie in it.

Source of the rules: s3prl `downstream/fluent_commands` (`expert.py`, `dataset.py`).

`torchaudio.datasets.FluentSpeechCommands` is not used: it takes the columns by their place, guesses the audio's path
from the speaker instead of reading it, and neither says which row is wrong nor which file is missing.
"""

from __future__ import annotations

from pathlib import Path

from superb_eval.data import table_io
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus, Manifest, Utterance, listing
from superb_eval.errors import UserError
from superb_eval.recipe import CorpusSettings

FOLDER = "fluent_speech_commands_dataset"
TABLES = {"train": "train_data.csv", "dev": "valid_data.csv", "test": "test_data.csv"}
SLOTS = ("action", "object", "location")

LAYOUT = f"{FOLDER}/data/{{train,valid,test}}_data.csv with {FOLDER}/wavs/speakers/<speaker>/*.wav"
ORIGIN = "Fluent.ai hands out Fluent Speech Commands for research, at no charge"

EXPECTED = {"train": 23_132, "dev": 3_118, "test": 3_793}
"""Utterances of a complete copy, as reported by users; not checked here."""

_NEEDED = ("path", "speakerId", *SLOTS)


def present(root: Path) -> bool:
    """Say whether `root` holds Fluent Speech Commands, or part of it."""
    return (root / FOLDER).is_dir()


def load(root: Path, settings: CorpusSettings) -> Corpus:
    """Return the three splits in the order of their tables, with the label columns `action`, `object`, `location`.

    `transcription` is kept beside them where the table has it.

    Raises:
        UserError: a table is missing or lacks a column, or rows are bad: every one of them is named with its line.
    """
    del settings
    folder = root / FOLDER
    files = table_io.Files(folder, allow_links=True)
    splits = {split: _split(folder, split, files) for split in TABLES}
    return Corpus(name="Fluent Speech Commands", root=root, splits=splits, expected=EXPECTED)


def _split(folder: Path, split: str, files: table_io.Files) -> Manifest:
    path = folder / "data" / TABLES[split]
    if not path.is_file():
        raise UserError(f"{path}: no such table. Expected {LAYOUT}. {ORIGIN}.")
    table = table_io.read(path)
    absent = [column for column in _NEEDED if column not in table.columns]
    if absent:
        found = ", ".join(filter(None, table.columns))
        raise UserError(f"{path}: missing column(s) {', '.join(absent)} (found: {found}). {ORIGIN}.")
    bad, utterances, seen = [], [], set[str]()
    for place, row in zip(table.places, table.rows, strict=True):
        cells = dict(zip(table.columns, row, strict=False))
        wrong = _problems(cells, files, seen)
        seen.add(cells.get("path", ""))
        if wrong:
            bad.append(f"line {place}: {'; '.join(wrong)}")
        else:
            utterances.append(_utterance(cells, folder, place))
    if bad:
        raise UserError(f"{listing(path, bad)}\n{ORIGIN}.")
    if not utterances:
        raise UserError(f"{path}: has column names but no rows. {ORIGIN}.")
    return Manifest(split, tuple(utterances), path)


def _problems(cells: dict[str, str], files: table_io.Files, seen: set[str]) -> list[str]:
    empty = [f"empty {column}" for column in _NEEDED if not cells.get(column)]
    if empty:
        return empty
    return [f"{cells['path']} stands there twice"] if cells["path"] in seen else files.problems(cells["path"])


def _utterance(cells: dict[str, str], folder: Path, line: int) -> Utterance:
    path = Path(cells["path"])
    labels = {column: cells[column] for column in (*SLOTS, "transcription") if column in cells}
    return Utterance(f"{path.parent.name}/{path.stem}", Clip(folder / path), cells["speakerId"], labels, line)
