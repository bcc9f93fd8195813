"""SD: Libri2Mix as the SUPERB protocol uses it: two speakers and noise, as long as the longer of the two.

Source: s3prl's fork of LibriMix (`generate_librimix_sd.sh`, `scripts/prepare_diarization.py`). Who speaks when comes
from RTTM files that were aligned on LibriSpeech and lie in that fork; both sources of a mixture start at 0. Two forms
are read: the Kaldi-style folders that the script prepares, and the lists and RTTM files that it prepares them from. Of
the folders, `rttm` is read and not `segments`: those name no speaker, so two equal ones of a mixture fall together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from superb_eval.corpora import recordings
from superb_eval.corpora.recordings import Recording, RttmLine
from superb_eval.data import table_io
from superb_eval.data.manifest import SPLITS, Corpus, Manifest
from superb_eval.errors import UserError
from superb_eval.recipe import CorpusSettings

PREPARED = "diarization"
MIXTURES = "Libri2Mix/wav16k/max/metadata"
ALIGNMENTS = "LibriMix/metadata/LibriSpeech"
LISTS = {
    "train": "mixture_train-100_mix_both.csv",
    "dev": "mixture_dev_mix_both.csv",
    "test": "mixture_test_mix_both.csv",
}
RTTMS = {"train": "train_clean_100.rttm", "dev": "dev_clean.rttm", "test": "test_clean.rttm"}
RATE = 16_000
"""Hz; the lists count samples."""

LAYOUT = (
    f"{PREPARED}/{{train,dev,test}}/{{wav.scp,reco2dur,rttm}}; or {MIXTURES}/{LISTS['train']}, {LISTS['dev']} and "
    f"{LISTS['test']} with {ALIGNMENTS}/*.rttm"
)
ORIGIN = (
    "Libri2Mix is made from LibriSpeech (CC BY 4.0) and WHAM noise (CC BY-NC 4.0) by generate_librimix_sd.sh of "
    "github.com/s3prl/LibriMix; its scripts/prepare_diarization.py --target_dir ROOT/diarization prepares the folders"
)

EXPECTED = {"train": 13_900, "dev": 3_000, "test": 3_000}
"""Mixtures of a complete copy (s3prl's fork, `metadata/Libri2Mix`). None is as long as a chunk of 40 s."""


def present(root: Path) -> bool:
    """Say whether `root` holds Libri2Mix in one of the two forms, or part of it."""
    return any((root / PREPARED / split / "wav.scp").is_file() for split in SPLITS) or (root / MIXTURES).is_dir()


def load(root: Path, settings: CorpusSettings) -> Corpus:
    """Return the three splits in chunks of `settings.chunk_seconds`, with the labels `recording` and `turns`.

    Raises:
        UserError: a file is missing, or lines are bad; all of these are named.
    """
    prepared = (root / PREPARED).is_dir()
    splits = {name: (_prepared if prepared else _raw)(root, name, settings) for name in SPLITS}
    expected = EXPECTED if settings.chunk_seconds >= 40 else {}
    return Corpus("Libri2Mix", root, splits, expected=expected)


def _prepared(root: Path, split: str, settings: CorpusSettings) -> Manifest:
    folder = root / PREPARED / split
    wavs, lasts = _table(folder / "wav.scp"), _table(folder / "reco2dur")
    lines, bad = recordings.read_rttm(folder / "rttm")
    bad += [f"line {line.number}: wav.scp has no '{line.recording}'" for line in lines if line.recording not in wavs]
    by_recording = recordings.of_recordings(lines)
    found, missing = [], []
    for number, (name, wav) in enumerate(wavs.items(), start=1):
        path, seconds = root / wav, _positive(lasts.get(name, ""))
        if not os.path.isfile(path) or seconds is None:
            missing.append(f"line {number}: {_lacking(name, path, seconds)}")
            continue
        found.append(Recording(name, path, seconds, by_recording.get(name, ()), line=number))
    recordings.refuse(folder / "wav.scp", missing, f"{ORIGIN}.")
    return _checked(folder / "rttm", split, found, bad, settings)


def _table(path: Path) -> dict[str, str]:
    """A Kaldi table: a name, a space, a value."""
    if not path.is_file():
        raise UserError(f"{path}: no such file. Expected {LAYOUT}. {ORIGIN}.")
    pairs = [line.split(maxsplit=1) for line in path.read_text(encoding="utf8").splitlines() if line.strip()]
    recordings.refuse(
        path, [f"'{' '.join(p)}' is no pair of name and value" for p in pairs if len(p) != 2], f"{ORIGIN}."
    )
    return {name: value.strip() for name, value in pairs}


def _raw(root: Path, split: str, settings: CorpusSettings) -> Manifest:
    path = root / MIXTURES / LISTS[split]
    if not path.is_file():
        raise UserError(f"{path}: no such file. Expected {LAYOUT}. {ORIGIN}.")
    table = table_io.read(path)
    lacking = [column for column in ("mixture_ID", "mixture_path", "length") if column not in table.columns]
    if lacking:
        raise UserError(
            f"{path}: missing column(s) {', '.join(lacking)} (found: {', '.join(table.columns)}). {ORIGIN}."
        )
    rttm = root / ALIGNMENTS / RTTMS[split]
    lines, bad = recordings.read_rttm(rttm)
    of_source = recordings.of_recordings(lines)
    found, wrong = [], []
    for place, cells in zip(table.places, table.rows, strict=True):
        row = dict(zip(table.columns, cells, strict=False))
        recording = _mixture(root, row, of_source, place)
        wrong += [f"line {place}: {recording}"] if isinstance(recording, str) else []
        found += [recording] if isinstance(recording, Recording) else []
    recordings.refuse(path, wrong, f"{ORIGIN}.")
    return _checked(rttm, split, found, bad, settings)


def _mixture(
    root: Path, row: Mapping[str, str], of_source: Mapping[str, tuple[RttmLine, ...]], place: int
) -> Recording | str:
    """The recording of a row, or what is wrong with the row."""
    name, samples = row.get("mixture_ID", ""), _positive(row.get("length", ""))
    # Paths are those of the machine that mixed; what follows "Libri2Mix" holds everywhere.
    path = root / "Libri2Mix" / row.get("mixture_path", "").rpartition("Libri2Mix/")[2]
    if not path.is_file() or samples is None:
        return _lacking(name, path, samples)
    # "84-121123-0001_1272-128104-0003": the alignment knows a source as "121123-0001".
    sources = [source.partition("-")[2] for source in name.split("_")]
    unaligned = [source for source in sources if source not in of_source]
    if unaligned or len(sources) != 2:
        return f"'{name}' names sources that the alignment does not have ({', '.join(unaligned) or 'two are expected'})"
    lines = tuple(line for source in sources for line in of_source[source])
    return Recording(name, path, samples / RATE, lines, line=place)


def _checked(rttm: Path, split: str, found: Sequence[Recording], bad: list[str], settings: CorpusSettings) -> Manifest:
    bad += [problem for recording in found for problem in recordings.problems(recording, settings.merge_turns)]
    recordings.refuse(rttm, list(dict.fromkeys(bad)), f"{ORIGIN}.")
    return recordings.split(split, rttm, found, settings.chunk_seconds)


def _positive(text: str) -> float | None:
    try:
        return float(text) if float(text) > 0 else None
    except ValueError:
        return None


def _lacking(name: str, path: Path, length: float | None) -> str:
    return f"'{name}' has no length" if length is None else f"no such file: {path}"
