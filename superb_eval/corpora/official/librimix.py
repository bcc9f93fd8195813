"""SD: Libri2Mix as in the SUPERB protocol: two speakers and noise, as long as the longer of the two utterances.

Source: s3prl's fork of LibriMix (`generate_librimix_sd.sh`, `scripts/prepare_diarization.py`). Speaker turns
come from RTTM files in that fork, which were aligned on LibriSpeech; both sources of a mixture start at 0. Two layouts
are read: the Kaldi-style folders that the script prepares, and the lists and RTTM files that it prepares them from. Of
the folders, `rttm` is read and not `segments`, which names no speakers, so that equal segments of both would coincide.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from downstreams.sd import DiarizationCorpus
from superb_eval.corpora import recordings
from superb_eval.corpora.recordings import Recording
from superb_eval.data import table_io
from superb_eval.data.manifest import SPLITS, Corpus, Manifest
from superb_eval.data.rttm import RttmLine, group_by_recording, read_rttm
from superb_eval.errors import UserError, listed
from superb_eval.runtime import outside_files

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
    """Return whether `root` holds Libri2Mix in one of the two layouts, or part of it."""
    return any((root / PREPARED / split / "wav.scp").is_file() for split in SPLITS) or (root / MIXTURES).is_dir()


def load(root: Path, settings: DiarizationCorpus) -> Corpus:
    """Return the three splits in chunks of `settings.chunk_seconds`, with the labels `recording` and `turns`.

    Raises:
        UserError: a file is missing, or lines are bad; all are named.
    """
    prepared = (root / PREPARED).is_dir()
    read_split = _prepared_split if prepared else _raw_split
    splits = {name: read_split(root, name, settings) for name in SPLITS}
    expected = EXPECTED if settings.chunk_seconds >= 40 else {}
    return Corpus("Libri2Mix", root, splits, expected=expected)


def _prepared_split(root: Path, split: str, settings: DiarizationCorpus) -> Manifest:
    folder = root / PREPARED / split
    wavs, durations = _kaldi_table(folder / "wav.scp"), _kaldi_table(folder / "reco2dur")
    lines, bad = read_rttm(folder / "rttm")
    bad += [f"line {line.number}: wav.scp has no '{line.recording}'" for line in lines if line.recording not in wavs]
    by_recording = group_by_recording(lines)
    complete, missing = [], []
    for number, (name, wav) in enumerate(wavs.items(), start=1):
        path, seconds = root / wav, _positive(durations.get(name, ""))
        if not os.path.isfile(path) or seconds is None:
            missing.append(f"line {number}: {_missing(name, path, seconds)}")
            continue
        complete.append(Recording(name, path, seconds, by_recording.get(name, ()), line=number))
    recordings.raise_if_bad(folder / "wav.scp", missing, f"{ORIGIN}.")
    return _checked_split(folder / "rttm", split, complete, bad, settings)


def _kaldi_table(path: Path) -> dict[str, str]:
    """Return a Kaldi table of lines `NAME VALUE`."""
    if not path.is_file():
        raise UserError(f"{path}: no such file. Expected {LAYOUT}. {ORIGIN}.")
    pairs = [line.split(maxsplit=1) for line in outside_files.read_text(path).splitlines() if line.strip()]
    recordings.raise_if_bad(
        path, [f"'{' '.join(p)}' isn't a name and a value" for p in pairs if len(p) != 2], f"{ORIGIN}."
    )
    return {name: value.strip() for name, value in pairs}


def _raw_split(root: Path, split: str, settings: DiarizationCorpus) -> Manifest:
    path = root / MIXTURES / LISTS[split]
    if not path.is_file():
        raise UserError(f"{path}: no such file. Expected {LAYOUT}. {ORIGIN}.")
    table = table_io.read(path)
    missing = [column for column in ("mixture_ID", "mixture_path", "length") if column not in table.columns]
    if missing:
        raise UserError(f"{path}: missing column(s) {', '.join(missing)} (found: {listed(table.columns)}). {ORIGIN}.")
    rttm = root / ALIGNMENTS / RTTMS[split]
    lines, bad = read_rttm(rttm)
    by_source = group_by_recording(lines)
    complete, wrong = [], []
    for number, cells in table.rows():
        row = dict(zip(table.columns, cells, strict=False))
        recording = _mixture(root, row, by_source, number)
        wrong += [f"line {number}: {recording}"] if isinstance(recording, str) else []
        complete += [recording] if isinstance(recording, Recording) else []
    recordings.raise_if_bad(path, wrong, f"{ORIGIN}.")
    return _checked_split(rttm, split, complete, bad, settings)


def _mixture(
    root: Path, row: Mapping[str, str], by_source: Mapping[str, tuple[RttmLine, ...]], number: int
) -> Recording | str:
    """Return the recording of a row, or a sentence on the row's problem."""
    name, samples = row.get("mixture_ID", ""), _positive(row.get("length", ""))
    # Paths are absolute, on the machine that mixed; the part after "Libri2Mix" is portable.
    path = root / "Libri2Mix" / row.get("mixture_path", "").rpartition("Libri2Mix/")[2]
    if not path.is_file() or samples is None:
        return _missing(name, path, samples)
    # "84-121123-0001_1272-128104-0003": the alignment names the first source "121123-0001".
    sources = [source.partition("-")[2] for source in name.split("_")]
    unaligned = [source for source in sources if source not in by_source]
    if unaligned or len(sources) != 2:
        return f"'{name}' names sources that the alignment lacks ({', '.join(unaligned) or 'two are expected'})"
    lines = tuple(line for source in sources for line in by_source[source])
    return Recording(name, path, samples / RATE, lines, line=number)


def _checked_split(
    rttm: Path, split: str, complete: Sequence[Recording], bad: list[str], settings: DiarizationCorpus
) -> Manifest:
    bad += [problem for recording in complete for problem in recordings.turn_problems(recording, settings.merge_turns)]
    recordings.raise_if_bad(rttm, list(dict.fromkeys(bad)), f"{ORIGIN}.")
    return recordings.chunked_split(split, rttm, complete, settings.chunk_seconds)


def _positive(text: str) -> float | None:
    try:
        return float(text) if float(text) > 0 else None
    except ValueError:
        return None


def _missing(name: str, path: Path, length: float | None) -> str:
    return f"'{name}' has no length" if length is None else f"no such file: {path}"
