"""The synthetic corpus as a whole: its content, and that every generation gives the same bytes."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from superb_eval.corpora.synthetic import generate, ks, synthesise
from superb_eval.corpora.synthetic.manifests import SPLITS
from superb_eval.data import read_manifest
from superb_eval.errors import UserError

pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise("nano", tmp_path_factory.mktemp("synthetic") / "nano", tasks=("ks",), workers=2)


def rows(corpus: Path) -> dict[str, list[dict[str, str]]]:
    return {split: list(csv.DictReader((corpus / "ks" / f"{split}.csv").open())) for split in SPLITS}


def test_the_number_of_workers_changes_no_byte(nano: Path, tmp_path: Path) -> None:
    other = synthesise("nano", tmp_path, tasks=("ks",), workers=1)
    for name in ("checksums.csv", "corpus.json", "ks/train.csv", "ks/dev.csv", "ks/test.csv"):
        assert (other / name).read_bytes() == (nano / name).read_bytes()


def test_checksums_are_those_of_the_files(nano: Path) -> None:
    table = list(csv.DictReader((nano / "checksums.csv").open()))
    assert [row["path"] for row in table] == [row["path"] for split in rows(nano).values() for row in split]
    assert all(hashlib.sha256((nano / row["path"]).read_bytes()).hexdigest() == row["sha256"] for row in table)
    assert len(list(nano.rglob("*.flac"))) == len(table)


def test_clips_are_one_second_and_not_clipped(nano: Path) -> None:
    peaks = []
    for path in nano.rglob("*.flac"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        audio, _ = soundfile.read(path)
        assert audio.shape == (16_000,)
        peaks.append(np.abs(audio).max())
    assert min(peaks) > 10 ** (-21 / 20)
    assert max(peaks) < 10 ** (-0.9 / 20)


def test_classes_are_balanced_and_speakers_disjoint(nano: Path) -> None:
    speakers = []
    for split, count in ks.SPEAKERS["nano"].items():
        table = rows(nano)[split]
        assert Counter(row["keyword"] for row in table) == dict.fromkeys(ks.CLASSES, count)
        speakers.append({row["speaker"] for row in table if row["keyword"] != ks.SILENCE})
        assert len(speakers[-1]) == count
    assert len(set.union(*speakers)) == sum(map(len, speakers))


def test_it_is_read_as_a_manifest_corpus(nano: Path) -> None:
    corpus = read_manifest.read(nano, "ks", ks.COLUMNS)
    assert corpus.synthetic
    assert corpus.name == "synthetic-nano-seed0"
    assert {split: len(part) for split, part in corpus.splits.items()} == {"train": 48, "dev": 24, "test": 24}


def test_level_alone_does_not_identify_silence(nano: Path) -> None:
    levels: dict[bool, list[float]] = {True: [], False: []}
    for row in (row for split in rows(nano).values() for row in split):
        levels[row["keyword"] == ks.SILENCE].append(float(np.std(soundfile.read(nano / row["path"])[0])))
    louder = np.mean([silence > speech for silence in levels[True] for speech in levels[False]])
    assert 0.15 < louder < 0.85


def test_description_and_second_call(nano: Path) -> None:
    about = json.loads((nano / "corpus.json").read_text())
    assert about["synthetic"] is True
    assert about["tasks"] == ["ks"]
    assert about["generator_version"] == generate.GENERATOR_VERSION
    calls: list[tuple[int, int]] = []
    assert synthesise("nano", nano, tasks=("ks",), progress=lambda done, total: calls.append((done, total))) == nano
    assert calls == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"size": "mini"}, r"size nano \(expected mini\)"),
        ({"size": "nano", "seed": 7}, r"seed 0 \(expected 7\)"),
        ({"size": "mino"}, "Did you mean 'mini'"),
        ({"size": "nano", "tasks": ("sk",)}, "no synthetic corpus for task 'sk'"),
        ({"size": "nano", "seed": -1}, "seed -1"),
        ({"size": "nano", "workers": 0}, "workers 0"),
    ],
)
def test_wrong_arguments_are_named(nano: Path, arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        synthesise(out=nano, **arguments)  # type: ignore[arg-type]


@pytest.mark.slow
def test_mini(tmp_path: Path) -> None:
    table = rows(synthesise("mini", tmp_path, tasks=("ks",)))
    assert {split: len(part) for split, part in table.items()} == {"train": 336, "dev": 144, "test": 288}
