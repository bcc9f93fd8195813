"""SID: the identification split of VoxCeleb1, by the list that its authors publish.

Source of the rules: s3prl `downstream/voxceleb1/dataset.py`. A line of the list is `<1|2|3> <speaker>/<video>/<file>`:
1 trains, 2 is dev, 3 is test. The audio is in either archive, dev or test, independent of its split here.

`torchaudio.datasets.VoxCeleb1Identification` is not used: it expects both archives merged into one folder, sorts
the list, and downloads it where it is missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from superb_eval.data.audio import Clip
from superb_eval.data.manifest import SPLITS, Corpus, Manifest, Utterance, bad_rows_message
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

FOLDER = "VoxCeleb1"
LISTS = ("iden_split.txt", "veri_test_class.txt")
"""The list's name in the release, and in s3prl."""

LAYOUT = f"{FOLDER}/{{dev,test}}/wav/<speaker>/<video>/*.wav with {FOLDER}/{LISTS[0]}"
ORIGIN = (
    "The Visual Geometry Group of Oxford distributes VoxCeleb1 on request: the archives vox1_dev_wav and "
    f"vox1_test_wav, each to be unpacked into its own folder, and the list {LISTS[0]} (in s3prl: {LISTS[1]})"
)

EXPECTED = {"train": 138_361, "dev": 6_904, "test": 8_251}
"""Utterances of a complete copy, as reported by users, not verified."""

_LINE = re.compile(r"([123])\s+((id\d{5})/([\w-]+)/(\w+)\.wav)")


def present(root: Path) -> bool:
    """Return whether `root` holds VoxCeleb1, or part of it."""
    return (root / FOLDER).is_dir()


def load(root: Path, settings: CorpusSettings) -> Corpus:
    """Return the three splits in the order of the list; the label column is `speaker`.

    Raises:
        UserError: list or audio are missing, or lines of the list are malformed; all are named.
    """
    del settings
    path = identification_list(root)
    folders = wav_folders(root)
    rows: dict[str, list[Utterance]] = {split: [] for split in SPLITS}
    bad, seen = [], set()
    for number, line in enumerate(outside_files.read_text(path).splitlines(), start=1):
        match = _LINE.fullmatch(line.strip())
        wav = find_wav(folders, match[2]) if match else None
        if match is None or wav is None or match[2] in seen:
            bad.append(f"line {number}: {_line_problem(line, match, wav)}")
            continue
        seen.add(match[2])
        rows[SPLITS[int(match[1]) - 1]].append(_utterance(match, wav, number))
    if bad:
        raise UserError(f"{bad_rows_message(path, bad)}\n{ORIGIN}.")
    _check_splits(path, rows)
    return Corpus(
        name="VoxCeleb1",
        root=root,
        splits={split: Manifest(split, tuple(rows[split]), path) for split in SPLITS},
        expected=EXPECTED,
    )


def identification_list(root: Path) -> Path:
    """Return the path of the list of the identification split, in the corpus folder or its parent.

    Raises:
        UserError: it is missing.
    """
    for folder in (root / FOLDER, root):
        for name in LISTS:
            if (folder / name).is_file():
                return folder / name
    raise UserError(f"{root / FOLDER}: has no {' or '.join(LISTS)}, the list of the splits. {ORIGIN}.")


def wav_folders(root: Path) -> list[Path]:
    """Return the folders that hold speakers: `VoxCeleb1/dev/wav` and `VoxCeleb1/test/wav`.

    Raises:
        UserError: one of them is missing.
    """
    folders = [root / FOLDER / half / "wav" for half in ("dev", "test")]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder. Expected {LAYOUT}. {ORIGIN}.")
    return folders


def find_wav(folders: Sequence[Path], name: str) -> Path | None:
    """Return the file `<speaker>/<video>/<file>.wav` in the first folder that holds it; None where none does."""
    # As text: with pathlib, the 150 000 files of a complete copy took three times as long.
    path = next((p for p in (f"{folder}/{name}" for folder in folders) if os.path.isfile(p)), None)
    return Path(path) if path else None


def _line_problem(line: str, match: re.Match[str] | None, wav: Path | None) -> str:
    if match is None:
        return f"'{line}' is not of the form '<1|2|3> id10001/<video>/<file>.wav'"
    return f"{match[2]} is in neither dev/wav nor test/wav" if wav is None else f"{match[2]} appears twice"


def _utterance(match: re.Match[str], wav: Path, line: int) -> Utterance:
    speaker, video, file = match[3], match[4], match[5]
    return Utterance(f"{speaker}-{video}-{file}", Clip(wav), speaker, {"speaker": speaker}, line)


def _check_splits(path: Path, rows: dict[str, list[Utterance]]) -> None:
    for number, split in enumerate(SPLITS, start=1):
        if not rows[split]:
            raise UserError(f"{path}: no line begins with {number}, which marks {split}. {ORIGIN}.")
