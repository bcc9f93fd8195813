"""The tables of other toolkits' data folders that are fuzzed: seed files, and readers that put them in their place."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

WAVS, SEGMENTS, TEXT = "r1 r1.wav\nr2\tr2.wav\n", "u1 r1 0.5 1.5\nu2 r2 0 -1\n", "u1 HI THERE\nu2 \n"
SPEAKERS = "u1 ann\r\nu2 bob\r\n"


def _write_wavs(folder: Path) -> None:
    for name in ("r1", "r2"):
        soundfile.write(folder / f"{name}.wav", np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)


def kaldi(folder: Path) -> list[bytes]:
    """Return the tables of a Kaldi data folder."""
    _write_wavs(folder)
    return [table.encode() for table in (WAVS, SEGMENTS, TEXT, SPEAKERS)]


def read_kaldi(path: Path) -> object:
    """Read the data folder with a file as each of its tables."""
    tables = {"wav.scp": WAVS, "segments": SEGMENTS, "text": TEXT, "utt2spk": SPEAKERS}
    others = {name: content.encode() for name, content in tables.items()}
    return _in_each_place(path, [(others, name) for name in others])


RECORDING = {
    "id": "r1",
    "sources": [{"type": "file", "channels": [0], "source": "r1.wav"}],
    "sampling_rate": 16_000,
    "num_samples": 32_000,
    "duration": 2.0,
    "transforms": None,
}
SUPERVISION = {
    "id": "s1",
    "recording_id": "r1",
    "start": 0.5,
    "duration": 1.0,
    "channel": 0,
    "text": "HI",
    "speaker": "ann",
    "custom": {"emotion": "sad", "tags": ["O"]},
}


def lhotse(folder: Path) -> list[bytes]:
    """Return the manifests of Lhotse."""
    _write_wavs(folder)
    cut = {"id": "c", "start": 0, "duration": 2, "channel": 0, "type": "MonoCut", "recording": RECORDING}
    cut["supervisions"] = [SUPERVISION]
    return [json.dumps(line).encode() for line in (cut, RECORDING, SUPERVISION)]


def read_lhotse(path: Path) -> object:
    """Read a file as each of the manifests."""
    both = {"recordings.jsonl": json.dumps(RECORDING).encode(), "supervisions.jsonl": json.dumps(SUPERVISION).encode()}
    return _in_each_place(path, [*((both, name) for name in both), ({}, "cuts.jsonl")])


def hugging_face(folder: Path) -> list[bytes]:
    """Return a table in Parquet with audio and classes, and the state file of a saved data set."""
    import pyarrow as pa
    from pyarrow import parquet

    del folder
    features = {"audio": {"_type": "Audio"}, "label": {"names": ["yes", "no"], "_type": "ClassLabel"}}
    cells = {"audio": [{"bytes": b"RIFF" + bytes(90), "path": f"{k}.wav"} for k in range(3)], "label": [0, 1, -1]}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    file = io.BytesIO()
    parquet.write_table(pa.table(cells).replace_schema_metadata(metadata), file)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}
    return [file.getvalue(), json.dumps(state).encode()]


def read_hugging_face(path: Path) -> object:
    """Read a file as a table in Parquet, as a table in Arrow, and as the state of a saved data set."""
    arrow = "data-00000-of-00001.arrow"
    state = {"state.json": json.dumps({"_data_files": [{"filename": arrow}]}).encode()}
    return _in_each_place(path, [({}, "train.parquet"), (state, arrow), (state, "state.json")])


def _in_each_place(path: Path, places: Sequence[tuple[Mapping[str, bytes], str]]) -> list[object]:
    """Read a folder with a file under each name, beside other files; it is refused where each reading refuses it."""
    from superb_eval.data.importers import formats
    from superb_eval.errors import UserError

    content, read, refused = path.read_bytes(), list[object](), None
    for others, place in places:
        written = {**others, place: content}
        for name, data in written.items():
            (path.parent / name).write_bytes(data)
        try:
            if formats.recognise(path.parent):
                read += [formats.read(path.parent, turns=turns) for turns in (False, True)]
        except UserError as error:
            refused = error
        finally:
            for name in written:
                (path.parent / name).unlink()
    if refused and not read:
        raise refused
    return read
