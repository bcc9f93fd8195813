"""IC: Fluent Speech Commands, read from its three CSV tables and the WAV files that they name.

Source of the rules: s3prl `downstream/fluent_commands` (`expert.py`, `dataset.py`).

`torchaudio.datasets.FluentSpeechCommands` is not used: it reads columns by position, derives the audio's path from the
speaker instead of reading it, and reports neither which row is wrong nor which file is missing.
"""

from __future__ import annotations

from pathlib import Path

from superb_eval.data import table_io
from superb_eval.data.audio import Clip
from superb_eval.data.audio_paths import AudioPaths
from superb_eval.data.manifest import Corpus, Manifest, Utterance, bad_rows_message
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError, listed

FOLDER = "fluent_speech_commands_dataset"
TABLES = {"train": "train_data.csv", "dev": "valid_data.csv", "test": "test_data.csv"}
SLOTS = ("action", "object", "location")

LAYOUT = f"{FOLDER}/data/{{train,valid,test}}_data.csv with {FOLDER}/wavs/speakers/<speaker>/*.wav"
ORIGIN = "Fluent.ai distributes Fluent Speech Commands for research, free of charge"

EXPECTED = {"train": 23_132, "dev": 3_118, "test": 3_793}
"""Utterances of a complete copy, as reported by users, not verified."""

_COLUMNS = ("path", "speakerId", *SLOTS)


def present(root: Path) -> bool:
    """Return whether `root` holds Fluent Speech Commands, or part of it."""
    return (root / FOLDER).is_dir()


def load(root: Path, settings: CorpusSettings) -> Corpus:
    """Return the three splits in the order of their tables, with the label columns `action`, `object`, `location`.

    The column `transcription` is added where the table has it.

    Raises:
        UserError: a table is missing or lacks a column, or rows are bad; all are named with their lines.
    """
    del settings
    folder = root / FOLDER
    paths = AudioPaths(folder, allow_links=True)
    splits = {split: _split(folder, split, paths) for split in TABLES}
    return Corpus(name="Fluent Speech Commands", root=root, splits=splits, expected=EXPECTED)


def _split(folder: Path, split: str, paths: AudioPaths) -> Manifest:
    path = folder / "data" / TABLES[split]
    if not path.is_file():
        raise UserError(f"{path}: no such table. Expected {LAYOUT}. {ORIGIN}.")
    table = table_io.read(path)
    missing = [column for column in _COLUMNS if column not in table.columns]
    if missing:
        found = listed([*filter(None, table.columns)])
        raise UserError(f"{path}: missing column(s) {', '.join(missing)} (found: {found}). {ORIGIN}.")
    bad, utterances, seen = [], [], set[str]()
    for number, row in table.rows():
        cells = dict(zip(table.columns, row, strict=False))
        problems = _problems(cells, paths, seen)
        seen.add(cells.get("path", ""))
        if problems:
            bad.append(f"line {number}: {'; '.join(problems)}")
        else:
            utterances.append(_utterance(cells, folder, number))
    if bad:
        raise UserError(f"{bad_rows_message(path, bad)}\n{ORIGIN}.")
    if not utterances:
        raise UserError(f"{path}: has column names but no rows. {ORIGIN}.")
    return Manifest(split, tuple(utterances), path)


def _problems(cells: dict[str, str], paths: AudioPaths, seen: set[str]) -> list[str]:
    empty = [f"empty {column}" for column in _COLUMNS if not cells.get(column)]
    if empty:
        return empty
    return [f"{cells['path']} appears twice"] if cells["path"] in seen else paths.problems(cells["path"])


def _utterance(cells: dict[str, str], folder: Path, line: int) -> Utterance:
    path = Path(cells["path"])
    labels = {column: cells[column] for column in (*SLOTS, "transcription") if column in cells}
    return Utterance(f"{path.parent.name}/{path.stem}", Clip(folder / path), cells["speakerId"], labels, line)
