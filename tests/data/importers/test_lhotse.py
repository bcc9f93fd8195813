"""Lhotse's manifests, written by hand as Lhotse 1 writes them: supervisions, cuts, turns, and what is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from superb_eval.data.importers import formats
from superb_eval.data.manifest import Turn
from superb_eval.errors import UserError


def recording(name: str = "a", **changes: Any) -> dict[str, Any]:
    source = {"type": "file", "channels": [0], "source": f"wav/{name}.wav"}
    return {"id": name, "sources": [source], "sampling_rate": 16000, "num_samples": 32000, "duration": 2.0,
            "channel_ids": [0], **changes}  # fmt: skip


def supervision(name: str = "s1", of: str = "a", **changes: Any) -> dict[str, Any]:
    return {"id": name, "recording_id": of, "start": 0.5, "duration": 1.0, "channel": 0, "text": "hi there",
            "language": "English", "speaker": "ann", "gender": "F",
            "custom": {"emotion": "sad", "tags": ["O", "B"], "f0": {"type": "array"}},
            "alignment": {"word": [["hi", 0.5, 0.2]]}, **changes}  # fmt: skip


def cut(name: str = "c1", **changes: Any) -> dict[str, Any]:
    inner = supervision(start=0.0)
    return {"id": name, "start": 0.5, "duration": 1.0, "channel": 0, "supervisions": [inner],
            "recording": recording(), "type": "MonoCut", **changes}  # fmt: skip


def write(path: Path, lines: Iterable[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    for name in ("a", "b"):
        (path.parent / "wav").mkdir(exist_ok=True)
        soundfile.write(path.parent / f"wav/{name}.wav", np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)


def problem(root: Path) -> str:
    with pytest.raises(UserError) as error:
        formats.read(root)
    return str(error.value)


def test_supervisions_are_segments_of_recordings(tmp_path: Path) -> None:
    write(tmp_path / "recordings.jsonl.gz", [recording(), recording("b")])
    write(
        tmp_path / "supervisions.jsonl.gz", [supervision(), supervision("s2", "b", start=0, duration=2.0, custom=None)]
    )
    assert formats.recognise(tmp_path) == "Lhotse manifests"
    source = formats.read(tmp_path)
    assert [(row.id, row.audio, row.start, row.end, row.speaker, row.location) for row in source.splits[""]] == [
        ("s1", tmp_path / "wav/a.wav", 0.5, 1.5, "ann", "supervisions.jsonl.gz, line 1"),
        ("s2", tmp_path / "wav/b.wav", 0.0, None, "ann", "supervisions.jsonl.gz, line 2"),
    ]
    plain = {"text": "hi there", "language": "English", "gender": "F"}
    assert [row.labels for row in source.splits[""]] == [{"emotion": "sad", "tags": "O B", **plain}, plain]


NAMES = {
    "after a prefix": ["my_recordings_{}.jsonl.gz", "my_supervisions_{}.jsonl.gz"],
    "alone": ["recordings_{}.jsonl", "supervisions_{}.jsonl"],
    "first": ["{}_recordings.jsonl.gz", "{}_supervisions.jsonl.gz"],
    "folders": ["{}/recordings.jsonl.gz", "{}/supervisions.jsonl.gz"],
}


@pytest.mark.parametrize("layout", NAMES)
def test_splits_are_in_the_names(tmp_path: Path, layout: str) -> None:
    for split in ("train", "dev", "test"):
        write(tmp_path / NAMES[layout][0].format(split), [recording()])
        write(tmp_path / NAMES[layout][1].format(split), [supervision(split)])
    source = formats.read(tmp_path)
    assert {name: [row.id for row in rows] for name, rows in source.splits.items()} == {
        "train": ["train"], "dev": ["dev"], "test": ["test"],
    }  # fmt: skip


def test_two_corpora_in_one_folder_are_named(tmp_path: Path) -> None:
    for name in ("a_recordings_train.jsonl", "b_recordings_train.jsonl"):
        write(tmp_path / name, [recording()])
    assert "a_recordings_train.jsonl and b_recordings_train.jsonl may each be the recordings of train" in problem(
        tmp_path
    )


def test_recordings_alone_are_utterances_without_labels(tmp_path: Path) -> None:
    write(tmp_path / "recordings.jsonl", [recording()])
    (row,) = formats.read(tmp_path).splits[""]
    assert (row.id, row.labels, row.end) == ("a", {}, None)


def test_cuts_of_one_supervision(tmp_path: Path) -> None:
    write(tmp_path / "x_cuts_train-clean-100.jsonl.gz", [cut(), cut("c2", start=0.0, duration=2, supervisions=[])])
    source = formats.read(tmp_path)
    rows = source.splits["train-clean-100"]
    assert [(row.id, row.start, row.end, row.speaker) for row in rows] == [
        ("c1", 0.5, 1.5, "ann"),
        ("c2", 0.0, None, ""),
    ]
    assert rows[0].labels["emotion"] == "sad"
    assert rows[1].labels == {}


def test_recordings_come_before_cuts(tmp_path: Path) -> None:
    write(tmp_path / "recordings.jsonl", [recording()])
    write(tmp_path / "supervisions.jsonl", [supervision()])
    write(tmp_path / "cuts.jsonl", [cut()])
    source = formats.read(tmp_path)
    assert [row.id for row in source.splits[""]] == ["s1"]
    assert source.notes == ("cuts.jsonl is left out: recordings.jsonl is read",)


def test_turns_are_supervisions(tmp_path: Path) -> None:
    turns = [supervision(), supervision("s2", start=1.25, duration=0.75, speaker="bob")]
    write(tmp_path / "recordings.jsonl", [recording(), recording("b")])
    write(tmp_path / "supervisions.jsonl", turns)
    rows = formats.read(tmp_path, turns=True).splits[""]
    expected = (Turn(0.5, 1.5, "ann"), Turn(1.25, 2.0, "bob"))
    assert [(row.id, row.turns, row.end) for row in rows] == [("a", expected, None), ("b", (), None)]
    write(tmp_path / "cuts/cuts.jsonl", [cut(start=0, duration=2.0, supervisions=turns)])
    (row,) = formats.read(tmp_path / "cuts", turns=True).splits[""]
    assert (row.turns, row.labels) == (expected, {})


def test_a_supervision_that_passes_the_end_a_little_is_cut_there(tmp_path: Path) -> None:
    write(tmp_path / "recordings.jsonl", [recording()])
    write(tmp_path / "supervisions.jsonl", [supervision(duration=1.75)])
    source = formats.read(tmp_path)
    assert source.splits[""][0].end is None
    assert source.notes == ("segments that pass the end of their recording end there",)
    write(tmp_path / "supervisions.jsonl", [supervision(duration=2.25)])
    assert "supervisions.jsonl, line 1: 0.5 s to 2.75 s lies outside its recording, which lasts 2.000 s" in problem(
        tmp_path
    )


def source(kind: str = "file", channels: Iterable[int] = (0,), path: str = "wav/a.wav") -> dict[str, Any]:
    return {"type": kind, "channels": list(channels), "source": path}


SPEED = {"name": "Speed", "kwargs": {"factor": 1.1}}

RECORDINGS = {
    "command": (
        {"sources": [source("command", path="touch ran |")]},
        "has a source of type command; only files are read",
    ),
    "url": ({"sources": [source("url")]}, "has a source of type url"),
    "memory": ({"sources": [source("memory")]}, "has a source of type memory"),
    "two channels": ({"sources": [source(channels=(0, 1))]}, "has the channels [0, 1]"),
    "two sources": ({"sources": [source(), source(channels=(1,))]}, "has the channels [0, 1]"),
    "second channel": ({"sources": [source(channels=(1,))]}, "has the channels [1]"),
    "transform": ({"transforms": [SPEED]}, "is to be transformed (Speed), which isn't done"),
    "no file": ({"sources": [source(path="gone.wav")]}, "has no such file: 'gone.wav' is in none of"),
    "no sources": ({"sources": None}, "sources is None: input should be a valid list"),
    "no duration": ({"duration": None}, "duration is None: input should be a valid number"),
}


@pytest.mark.parametrize("case", RECORDINGS)
def test_recordings_that_are_refused(tmp_path: Path, case: str) -> None:
    changes, expected = RECORDINGS[case]
    write(tmp_path / "recordings.jsonl", [recording("b"), recording(**changes)])
    write(tmp_path / "supervisions.jsonl", [supervision(), supervision("s2", "b")])
    text = problem(tmp_path)
    if "input should" not in expected:
        expected = f"recording 'a' {expected}"
    assert f"recordings.jsonl, line 2: {expected}" in text
    assert text.startswith(f"{tmp_path}: 1 bad row(s)")
    assert not Path("ran").exists()


SUPERVISIONS = {
    "unknown recording": ({"recording_id": "z"}, "recording 'z' is in no line of the recordings"),
    "second channel": ({"channel": 1}, "is of channel 1"),
    "no start": ({"start": None}, "start is None: input should be a valid number"),
    "negative": ({"start": -1.0}, "-1.0 s to 0.0 s lies outside"),
}


@pytest.mark.parametrize("case", SUPERVISIONS)
def test_supervisions_that_are_refused(tmp_path: Path, case: str) -> None:
    changes, expected = SUPERVISIONS[case]
    write(tmp_path / "recordings.jsonl", [recording()])
    write(tmp_path / "supervisions.jsonl", [supervision(), supervision("s2", **changes), supervision()])
    text = problem(tmp_path)
    assert f"supervisions.jsonl, line 2: {expected}" in text
    assert "line 3: id 's1' is already that of line 1" in text


CUTS = {
    "mixed": ({"type": "MixedCut"}, "cut 'c1' is a MixedCut; only MonoCut is read"),
    "features": (
        {"recording": None, "features": {"type": "fbank"}},
        "cut 'c1' has no recording: features alone are no audio",
    ),
    "supervisions": ({"supervisions": [supervision(), supervision("s2")]}, "cut 'c1' has 2 supervisions; one is read"),
    "channel": ({"channel": 1}, "cut 'c1' is of channel 1"),
    "transform": ({"recording": recording(transforms=[SPEED])}, "recording 'a' is to be transformed (Speed)"),
}


@pytest.mark.parametrize("case", CUTS)
def test_cuts_that_are_refused(tmp_path: Path, case: str) -> None:
    changes, expected = CUTS[case]
    write(tmp_path / "cuts.jsonl", [cut(**changes)])
    assert f"cuts.jsonl, line 1: {expected}" in problem(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "line 1 is not valid JSON"),
        (b"[]", "line 1 is no JSON object, but list"),
        (b"\xff", "line 1 is not valid JSON"),
    ],
)
def test_damaged_lines_are_named(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "cuts.jsonl").write_bytes(content)
    assert expected in problem(tmp_path)
    (tmp_path / "cuts.jsonl").unlink()
    (tmp_path / "cuts.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 9)[:-9])
    assert "cuts.jsonl.gz: can't be read" in problem(tmp_path)
