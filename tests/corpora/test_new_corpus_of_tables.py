"""`corpus new` of tables that hold audio as bytes: files in their own format, read in batches, written once."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from pyarrow import parquet

from superb_eval.corpora.building import table_audio
from superb_eval.data import audio
from superb_eval.data.audio import Clip
from tests.corpora.test_new_corpus import load, make


def encoded(seed: int, kind: str) -> bytes:
    file = io.BytesIO()
    noise = 0.1 * np.random.default_rng(seed).standard_normal(4_000)
    subtype = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}[kind]
    soundfile.write(file, noise, 16_000, format=kind, subtype=subtype)
    return file.getvalue()


def table(path: Path, rows: list[dict[str, object]], group: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def rows(
    speakers: int, first: int = 0, kinds: tuple[str, ...] = ("WAV", "FLAC", "OGG", "MP3")
) -> list[dict[str, object]]:
    return [
        {
            "audio": {"bytes": encoded(first + i, kinds[i % len(kinds)]), "path": None},
            "sentence": f"WORD {'A' * (i % 3 + 1)}",
            "client_id": f"s{first + i % speakers}",
        }
        for i in range(2 * speakers)
    ]


def test_bytes_become_files_in_their_own_format(tmp_path: Path) -> None:
    content = rows(10)
    table(tmp_path / "hub/data/train-00000-of-00002.parquet", content[:12])
    table(tmp_path / "hub/data/train-00001-of-00002.parquet", content[12:])
    lines = make("asr", tmp_path / "hub", tmp_path / "out")
    assert "  columns: text is the column sentence" in lines and "  columns: speaker is the column client_id" in lines
    corpus = load("asr", tmp_path / "out")
    written = {u.clip.path.read_bytes(): (u.clip.path.suffix, u.speaker) for s in corpus.splits.values() for u in s}
    endings = (".wav", ".flac", ".ogg", ".mp3")
    assert written == {r["audio"]["bytes"]: (endings[i % 4], r["client_id"]) for i, r in enumerate(content)}  # type: ignore[index]
    assert not any(u.clip.path.is_symlink() for s in corpus.splits.values() for u in s)


def test_names_are_kept_where_they_are_unique_and_never_lead_out(tmp_path: Path) -> None:
    content = rows(3, kinds=("WAV",))
    for row, name in zip(content, ["a.wav", "x/b.wav", "y/b.wav", "../../c.wav", "d", ""], strict=True):
        row["audio"]["path"] = name  # type: ignore[index]
    table(tmp_path / "hub/train.parquet", content)
    make("asr", tmp_path / "hub", tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out/audio/train").iterdir())
    assert files == ["00000001-b.wav", "00000002-b.wav", "00000005.wav", "a.wav", "c.wav", "d.wav"]
    assert not (tmp_path / "c.wav").exists()


def test_a_row_without_audio_or_with_damaged_bytes_is_left_out(tmp_path: Path) -> None:
    content = rows(8, kinds=("WAV",))
    content[0]["audio"] = {"bytes": b"", "path": "a.wav"}
    content[1]["audio"] = {"bytes": b"<html>", "path": "b.wav"}
    table(tmp_path / "hub/train.parquet", content)
    lines = make("asr", tmp_path / "hub", tmp_path / "out")
    assert any(
        line.startswith("  left out: 2 whose audio can't be read, such as train.parquet, row ") for line in lines
    )


def test_an_interrupted_command_writes_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path / "hub/train.parquet", rows(6))
    written: list[str] = []
    write = table_audio.atomic_files.write_bytes

    def interrupted(path: Path, data: bytes) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(table_audio.atomic_files, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make("asr", tmp_path / "hub", tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/audio").rglob("*.*")}
    assert len(before) == 5
    make("asr", tmp_path / "hub", tmp_path / "out")
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert sum(len(s) for s in load("asr", tmp_path / "out").splits.values()) == 12


def test_superbs_er_sessions_are_folds(tmp_path: Path) -> None:
    for k in range(1, 6):
        content = [{"audio": r["audio"], "label": "hap" if i % 2 else "sad"} for i, r in enumerate(rows(2, 10 * k))]
        table(tmp_path / f"er/session{k}-00000-of-00001.parquet", content)
    lines = make("er", tmp_path / "er", tmp_path / "out")
    corpus = load("er", tmp_path / "out")
    assert {u.labels["fold"] for s in corpus.splits.values() for u in s} == {f"session{k}" for k in range(1, 6)}
    assert any("cross-validation over 5 folds" in line for line in lines)
    clip = corpus.splits["train"].utterances[0].clip
    assert audio.seconds(Clip(clip.path)) == 0.25


def test_superbs_si_labels_are_the_speakers_of_sid(tmp_path: Path) -> None:
    for k, split in enumerate(("train", "validation", "test")):
        content = [{"audio": r["audio"], "label": 10_001 + i % 2} for i, r in enumerate(rows(2, 10 * k))]
        table(tmp_path / f"si/{split}-00000-of-00001.parquet", content)
    make("sid", tmp_path / "si", tmp_path / "out")
    assert [{u.speaker for u in s} for s in load("sid", tmp_path / "out").splits.values()] == [{"10001", "10002"}] * 3


def test_superbs_sd_recordings_have_their_turns(tmp_path: Path) -> None:
    for k, split in enumerate(("train", "dev", "test")):
        content = [
            {
                "record_id": f"{split}-{i}",
                "file": f"{split}-{i}.wav",
                "start": 0,
                "end": 25,
                "audio": r["audio"],
                "speakers": [
                    {"speaker_id": f"a{split}", "start": 0, "end": 10},
                    {"speaker_id": f"b{split}", "start": 8, "end": 20},
                ],
            }
            for i, r in enumerate(rows(2, 10 * k, kinds=("WAV",)))
        ]
        table(tmp_path / f"sd/{split}-00000-of-00001.parquet", content)
    make("sd", tmp_path / "sd", tmp_path / "out")
    corpus = load("sd", tmp_path / "out")
    assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 4, "dev": 4, "test": 4}
    first = corpus.splits["dev"].utterances[0]
    assert first.id == "dev-0" and first.labels["turns"] == '[[0.0, 0.1, "adev"], [0.08, 0.2, "bdev"]]'
