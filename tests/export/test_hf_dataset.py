"""A task's rows as a data set of Hugging Face: read back by `datasets` itself where it is installed."""

from __future__ import annotations

import csv
import resource
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from superb_eval.corpora.load_corpus import read_corpus
from superb_eval.data import audio
from superb_eval.data.manifest import Corpus, Manifest
from superb_eval.errors import UserError
from superb_eval.export import hf_dataset
from superb_eval.runs.config import choose_recipe
from superb_eval.runtime.progress import NoProgress


def read(task: str, root: Path) -> Corpus:
    return read_corpus(choose_recipe(task, root), root)


@pytest.fixture
def corpus(tmp_path: Path, tones: Path) -> Corpus:
    """The tones, with an id and labels that a CSV reader would mistake, and a clip that is part of a file."""
    given = read("ks", tones)
    test = given.splits["test"].utterances
    odd = [
        replace(test[0], id="001", labels={"keyword": "no", "text": "NULL"}),
        replace(test[1], id="a/b c", labels={"keyword": "no", "text": "2024-01-01"}),
        replace(test[2], clip=replace(test[2].clip, start=0.1, end=0.3, gain_db=-3.0)),
    ]
    splits = {**given.splits, "test": Manifest("test", tuple(odd), tmp_path / "test.csv")}
    return replace(given, splits=splits)


def exported(corpus: Corpus, out: Path) -> dict[str, pd.DataFrame]:
    hf_dataset.export(corpus, "ks", out, NoProgress())
    return {name: pd.read_parquet(out / name / hf_dataset.METADATA) for name in hf_dataset.FOLDERS.values()}


def test_text_stays_text_and_audio_is_cut_as_the_row_defines(corpus: Corpus, tmp_path: Path) -> None:
    tables = exported(corpus, tmp_path / "out")
    assert {name: len(table) for name, table in tables.items()} == {"train": 36, "validation": 18, "test": 3}
    test = tables["test"]
    assert list(test.columns) == ["file_name", "id", "speaker", "keyword", "text"]
    assert test["id"].tolist()[:2] == ["001", "a/b c"] and test["text"].tolist() == ["NULL", "2024-01-01", ""]
    for utterance, name in zip(corpus.splits["test"], test["file_name"], strict=True):
        written, rate = soundfile.read(tmp_path / "out" / "test" / name, dtype="float32")
        wanted = audio.read(replace(utterance.clip, gain_db=0.0))
        assert rate == audio.SAMPLE_RATE
        np.testing.assert_allclose(written, wanted, atol=2**-15)


def test_existing_clips_stay_and_unlisted_ones_are_removed(corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported(corpus, out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    fewer = replace(corpus.splits["test"], utterances=corpus.splits["test"].utterances[1:])
    tables = exported(replace(corpus, splits={**corpus.splits, "test": fewer}), out)
    left = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    assert set(times) - set(left) == {path for path in times if path.name.startswith("001-")}
    assert all(times[path] == left[path] for path in left)
    assert {path.name for path in (out / "test").glob("*.flac")} == set(tables["test"]["file_name"])


def test_a_folder_called_like_the_home_folder_is_written(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hf_dataset.export(corpus, "ks", Path("~"), NoProgress())
    assert (tmp_path / "~/test" / hf_dataset.METADATA).is_file()


def test_a_full_disk_leaves_no_part_of_a_clip(corpus: Corpus, tmp_path: Path) -> None:
    """Where only its last bytes do not fit, libsndfile reports nothing: the part would be taken for the clip."""
    samples = audio.read(corpus.splits["train"].utterances[0].clip)
    hf_dataset._write(tmp_path / "whole.flac", samples)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "whole.flac").stat().st_size - 100, before[1]))
    try:
        with pytest.raises(UserError, match=r"part\.flac: files may not grow that large here"):
            hf_dataset._write(tmp_path / "part.flac", samples)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "part.flac").exists()


def test_trials_go_beside(melodies: Path, tmp_path: Path) -> None:
    given = read("qbe", melodies)
    hf_dataset.export(given, "qbe", tmp_path, NoProgress())
    with (tmp_path / hf_dataset.TRIALS).open(encoding="utf8") as file:
        trials = list(csv.DictReader(file))
    assert len(trials) == sum(len(split.trials) for split in given.splits.values()) > 0
    ids = set(pd.read_parquet(tmp_path / "test" / hf_dataset.METADATA)["id"])
    assert all({t["enroll"], t["test"]} <= ids for t in trials if t["split"] == "test")


def test_datasets_reads_it(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    # It asks for torchcodec even where audio is only pointed to; nothing of it is called here.
    encoders = types.ModuleType("torchcodec.encoders")
    encoders.AudioEncoder = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.encoders", encoders)
    tables = exported(corpus, tmp_path / "out")
    splits = datasets.load_dataset("audiofolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(splits) == {"train", "validation", "test"}
    for name, split in splits.items():
        raw = split.cast_column("audio", datasets.Audio(decode=False))
        assert {Path(row["audio"]["path"]).name for row in raw} == set(tables[name]["file_name"])
        columns = ["id", "speaker", "keyword"]
        rows = sorted(tuple(row[c] for c in columns) for row in raw)
        assert rows == sorted(tables[name][columns].itertuples(index=False, name=None))
