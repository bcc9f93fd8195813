"""Export a task's rows as a Hugging Face dataset: `datasets.load_dataset("audiofolder", data_dir=OUT)`.

The layout is that of `datasets`' folder builders: a folder for each split, in it the audio and a table `metadata` whose
column `file_name` points to it. The table is Parquet, in which text stays text: read from CSV, an id 001 would become 1
and the transcript NULL would be lost.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import soundfile

from superb_eval.data import audio
from superb_eval.data.audio import Clip, Waveform
from superb_eval.data.manifest import Corpus, Manifest, Utterance
from superb_eval.runtime import atomic_files, own_folder
from superb_eval.runtime.progress import Progress

FOLDERS = {"train": "train", "dev": "validation", "test": "test"}
"""Names of the splits in `datasets`."""

KIND = "data set"
"""Of the folder, in its marker."""

METADATA, TRIALS, CARD = "metadata.parquet", "trials.csv", "README.md"


def export(corpus: Corpus, task: str, out: Path, progress: Progress) -> Path:
    """Write every row of a corpus with its audio, as cut: mono FLAC of 16 bit at 16 kHz, at its recorded level.

    Columns are `file_name`, `id`, `speaker` and the task's labels, all text, the same in every split. The recipe's
    changes to audio (gain, trimmed silence) are left out. Trials, where the task has them, go to `trials.csv` by
    utterance ids. An interrupted export is resumed. Return `out`.

    Raises:
        UserError: `out` holds something else, audio can't be read, or the disk is full.
    """
    own_folder.claim(out, KIND)
    labels = dict.fromkeys(label for split in corpus.splits.values() for u in split for label in u.labels)
    columns = list(dict.fromkeys(["file_name", "id", "speaker", *labels]))
    with progress.step("exporting", sum(map(len, corpus.splits.values()))) as update:
        done = 0
        for name, split in corpus.splits.items():
            rows = []
            for row in _rows(split, out / FOLDERS[name]):
                rows.append(row)
                done += 1
                update(done)
            _write_table(out / FOLDERS[name], pd.DataFrame(rows, columns=columns, dtype=str).fillna(""))
    trials = [(name, t.enroll, t.test, int(t.target)) for name, s in corpus.splits.items() for t in s.trials if t.test]
    if trials:
        table = pd.DataFrame(trials, columns=["split", "enroll", "test", "target"])
        atomic_files.write_text(out / TRIALS, table.to_csv(index=False))
    atomic_files.write_text(out / CARD, _card(corpus, task))
    return out


def _rows(split: Manifest, folder: Path) -> Iterator[dict[str, str]]:
    """Write the audio of a split, and yield the line of each row."""
    for utterance in split:
        clip = replace(utterance.clip, gain_db=0.0, trim_silence=False)
        name = _name(utterance, clip)
        if not (folder / name).is_file():
            _write(folder / name, audio.read(clip))
        yield {"file_name": name, "id": utterance.id, "speaker": utterance.speaker, **utterance.labels}


def _write(path: Path, samples: Waveform) -> None:
    """Write a clip; encoded in memory, since libsndfile reports no full disk when it closes a file."""
    content = io.BytesIO()
    soundfile.write(content, samples, audio.SAMPLE_RATE, "PCM_16", format="FLAC")
    atomic_files.write_bytes(path, content.getvalue())


def _name(utterance: Utterance, clip: Clip) -> str:
    """Return a file name made of the row's id and, so that it is unique, a digest of the audio."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', utterance.id)[:80]}-{audio.digest(clip)[:10]}.flac"


NAME = re.compile(r"[A-Za-z0-9_-]*-[0-9a-f]{10}\.flac")
"""The file names of clips, from `_name`."""


def _write_table(folder: Path, table: pd.DataFrame) -> None:
    """Write the table of a split, last; remove clips of an earlier export that it doesn't list."""
    listed = set(table["file_name"])
    for path in folder.glob("*.flac"):
        if path.name not in listed and NAME.fullmatch(path.name):
            path.unlink()
    # pandas takes a relative path that begins with ~ for one in the home folder.
    atomic_files.write(folder.absolute() / METADATA, lambda path: table.to_parquet(path, index=False))


def _card(corpus: Corpus, task: str) -> str:
    counts = ", ".join(f"{FOLDERS[name]} {len(split)}" for name, split in corpus.splits.items())
    kind = "Synthetic speech, not recordings of people.\n" if corpus.synthetic else ""
    return f"""# {corpus.name}: {task}

{counts} utterances, exported by superb-eval. Mono FLAC, 16 bit, 16 kHz.
{kind}The licence is that of the audio it was made from.

    from datasets import load_dataset
    splits = load_dataset("audiofolder", data_dir="this folder")
"""
