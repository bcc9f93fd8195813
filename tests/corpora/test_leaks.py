"""Leaks: what two splits share is found, by path, by what files hold and by speakers; what they may share is not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from superb_eval.corpora.leaks import leaks
from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import NO_SPEAKER, Corpus, Manifest, Utterance


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{k}.wav" for k in range(3)]
    for k, path in enumerate(paths):
        soundfile.write(path, np.random.default_rng(k).integers(-3000, 3000, 32_000).astype(np.int16), 16_000)
    return paths


def corpus(**clips: tuple[Clip, str]) -> Corpus:
    splits = {
        name: Manifest(name, (Utterance(name, clip, speaker, {"keyword": "yes"}, 2),), Path(f"{name}.csv"))
        for name, (clip, speaker) in clips.items()
    }
    return Corpus("mine", Path(), splits)


def found(rows: Corpus, label_column: str | None = "keyword", of_fold: bool = False) -> list[str]:
    return leaks(rows, {clip: audio.digest(clip) for clip in rows.clips()}, label_column, of_fold=of_fold)


def test_splits_that_share_nothing_have_no_leak(files: list[Path]) -> None:
    rows = corpus(train=(Clip(files[0]), "anna"), dev=(Clip(files[1]), "ben"), test=(Clip(files[2]), "cleo"))
    assert found(rows) == []


def test_shared_audio_is_found_by_path_by_overlap_and_by_content(files: list[Path], tmp_path: Path) -> None:
    copy, link = tmp_path / "copy.wav", tmp_path / "link.wav"
    shutil.copy(files[0], copy)
    link.symlink_to(files[0])
    whole, cut = Clip(files[0]), Clip(files[0], 0.5, 1.5)
    for test in (whole, cut, Clip(copy), Clip(link), Clip(link, 0.5, 1.5)):
        rows = corpus(train=(whole if test == cut else cut if test.start else whole, "anna"), test=(test, "ben"))
        (text,) = found(rows)
        assert text == "train and test use the same audio (0.wav): scores on test are optimistically biased."
    assert found(corpus(train=(Clip(files[0], 0.0, 0.5), "anna"), test=(cut, "ben"))) == []


def test_shared_speakers_are_found_but_in_tasks_that_recognise_them(files: list[Path]) -> None:
    rows = corpus(train=(Clip(files[0]), "anna"), dev=(Clip(files[1]), "anna"), test=(Clip(files[2]), "anna"))
    assert len(found(rows)) == 3
    assert found(rows)[1] == "train and test share the speakers anna: scores on test are optimistically biased."
    assert found(rows, "speaker") == []
    assert [text.partition(" share")[0] for text in found(rows, of_fold=True)] == ["train and test", "dev and test"]
    silent = corpus(train=(Clip(files[0]), NO_SPEAKER), test=(Clip(files[2]), NO_SPEAKER))
    assert found(silent) == []


def test_speakers_of_recordings_are_those_of_their_turns(files: list[Path]) -> None:
    rows = corpus(train=(Clip(files[0]), "anna ben"), test=(Clip(files[2]), "ben cleo"))
    turns = {"train": [[0, 1, "anna"], [1, 2, "ben"]], "test": [[0, 1, "ben"], [1, 2, "cleo"]]}
    splits = {
        name: replace(s, utterances=tuple(replace(u, labels={"turns": json.dumps(turns[name])}) for u in s))
        for name, s in rows.splits.items()
    }
    (text,) = found(replace(rows, splits=splits), None)
    assert "share the speakers ben:" in text


def test_what_splits_share_by_the_protocol_is_no_leak(files: list[Path]) -> None:
    rows = corpus(dev=(Clip(files[0]), NO_SPEAKER), test=(Clip(files[0]), NO_SPEAKER))
    assert len(found(rows)) == 1
    assert found(replace(rows, shared="documents")) == []


@pytest.mark.parametrize("turns", ["two", "3", "[[1]]", "[" * 10**5])
def test_a_column_called_turns_of_another_task_is_none(files: list[Path], turns: str) -> None:
    rows = corpus(train=(Clip(files[0]), "a"), test=(Clip(files[1]), "a"))
    splits = {
        name: replace(split, utterances=tuple(replace(u, labels={**u.labels, "turns": turns}) for u in split))
        for name, split in rows.splits.items()
    }
    assert found(replace(rows, splits=splits)) == found(rows) != []
