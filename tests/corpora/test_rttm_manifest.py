"""The manifest folder of SD: recordings in chunks with their turns, and RTTM lines that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from downstreams.sd import DiarizationCorpus
from superb_eval.corpora import load_corpus
from superb_eval.data.manifest import Corpus
from superb_eval.errors import UserError

GOOD = ["SPEAKER x 1 0.1 1.0 <NA> <NA> ann <NA> <NA>", "SPEAKER x 1 0.5 1.0 <NA> <NA> bob <NA> <NA>",
        "SPEAKER y 1 2.0 0.5 <NA> <NA> bob <NA> <NA>", "SPEAKER y 1 0.0 0.5 <NA> <NA> ann <NA> <NA>"]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sd").mkdir()
    for name, seconds in (("x", 2.0), ("y", 5.0)):
        samples = np.random.default_rng(1).integers(-3000, 3000, round(16_000 * seconds)).astype(np.int16)
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000)
    for split in ("train", "dev", "test"):
        (tmp_path / "sd" / f"{split}.csv").write_text("id,path,kind\nx,x.wav,real\ny,y.wav,made\n")
        rttm(tmp_path, *GOOD, split=split)
    return tmp_path


def rttm(root: Path, *lines: str, split: str = "test") -> None:
    (root / "sd" / f"{split}.rttm").write_text("\n".join(lines) + "\n")


def load(root: Path, **settings: float) -> Corpus:
    return load_corpus.open_corpus("sd", root, (), DiarizationCorpus.model_validate(settings))


def test_recordings_carry_their_turns_by_start(root: Path) -> None:
    x, y = load(root).splits["test"]
    assert (x.id, x.labels["recording"], x.labels["kind"], x.speaker) == ("x", "x", "real", "ann bob")
    assert json.loads(y.labels["turns"]) == [[0.0, 0.5, "ann"], [2.0, 2.5, "bob"]]
    assert (y.clip.start, y.clip.end) == (0.0, 5.0)


def test_long_recordings_are_cut_into_chunks(root: Path) -> None:
    corpus = load(root, chunk_seconds=2)
    chunks = corpus.splits["test"].utterances
    assert [(u.id, u.clip.start, u.clip.end) for u in chunks] == [
        ("x", 0.0, 2.0), ("y#0", 0.0, 2.0), ("y#1", 2.0, 4.0), ("y#2", 4.0, 5.0),
    ]  # fmt: skip
    assert len({u.labels["turns"] for u in chunks[1:]}) == 1
    assert {u.labels["recording"] for u in chunks[1:]} == {"y"}


def test_a_last_chunk_that_is_too_short_is_left_out(root: Path) -> None:
    assert [u.clip.end for u in load(root, chunk_seconds=1.99).splits["test"]] == [1.99, 1.99, 3.98, 5.0]


def test_other_numbers_of_speakers_are_left_out_and_counted(root: Path) -> None:
    rttm(root, *GOOD, "SPEAKER y 1 4.0 0.5 <NA> <NA> cat <NA> <NA>")
    corpus = load(root)
    assert [u.id for u in corpus.splits["test"]] == ["x"]
    assert corpus.notes == ("test: 1 of 2 recordings left out by their speakers (1 with 3)",)
    rttm(root, *GOOD[:2])
    assert load(root).notes == ("test: 1 of 2 recordings left out by their speakers (1 with 0)",)
    rttm(root, GOOD[0])
    with pytest.raises(UserError, match=r"test\.rttm: no recording is left for test"):
        load(root)


def test_every_bad_line_is_named_at_once(root: Path) -> None:
    twice, late = "SPEAKER x 1 0.9 0.9 <NA> <NA> ann <NA> <NA>", "SPEAKER y 1 4.5 1.5 <NA> <NA> bob <NA>"
    stray, words, back = "SPEAKER z 1 0 1 <NA> <NA> ann", "SPEAKER x 1 one 1", "SPEAKER x 1 1.0 -1 <NA> <NA> bob"
    rttm(root, *GOOD, twice, stray, words, late, back, "speaker x", "; a comment", "")
    with pytest.raises(UserError) as error:
        load(root)
    message = str(error.value)
    assert "test.rttm: 6 bad row(s)" in message
    assert "line 5: speaker ann of x already has a turn in line 1 (0.100 to 1.100 s); merge the two turns" in message
    assert "line 6: test.csv has no id 'z'" in message
    assert "line 7: 'SPEAKER x 1 one 1' is not 'SPEAKER recording 1 start duration ... speaker'" in message
    assert "line 8: the turn ends at 6.000 s, but y.wav lasts 5.000 s" in message
    assert "line 9:" in message and "line 10: 'speaker x' doesn't begin with a type" in message


def test_overlapping_turns_are_merged_on_request_and_counted(root: Path) -> None:
    rttm(root, *GOOD, "SPEAKER x 1 0.9 0.9 <NA> <NA> ann <NA> <NA>")
    corpus = load(root, merge_turns=True)
    assert json.loads(corpus.splits["test"].utterances[0].labels["turns"])[0] == [0.1, 1.8, "ann"]
    assert corpus.notes == ("test: 1 pair(s) of overlapping turns of one speaker merged",)


def test_rounded_times_are_tolerated(root: Path) -> None:
    rttm(root, *GOOD, "SPEAKER x 1 1.095 0.91 <NA> <NA> ann <NA> <NA>")
    assert json.loads(load(root).splits["test"].utterances[0].labels["turns"])[0] == [0.1, pytest.approx(2.005), "ann"]


def test_start_and_end_are_refused_because_turns_count_from_the_beginning(root: Path) -> None:
    (root / "sd" / "dev.csv").write_text("id,path,start,end\nx,x.wav,,\ny,y.wav,1,4\n")
    with pytest.raises(UserError, match=r"dev\.csv: 1 bad row\(s\):\n  line 3: recordings are read whole"):
        load(root)


def test_a_missing_rttm_is_named(root: Path) -> None:
    (root / "sd" / "dev.rttm").unlink()
    with pytest.raises(UserError, match=r"dev\.rttm: can't be read as an RTTM file"):
        load(root)
