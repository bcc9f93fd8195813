"""`superb-eval corpus new` as its users meet it: what it prints, and a run on what it made."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.cli.test_app import Called

SHORT = ("-o", "train.steps=40", "-o", "train.eval_every=20", "-o", "train.lr=1e-2")


def as_kaldi(corpus: Path, root: Path) -> Path:
    """Write a KS corpus of manifests as Kaldi data folders."""
    for split in ("train", "dev", "test"):
        with (corpus / "ks" / f"{split}.csv").open(encoding="utf8", newline="") as file:
            rows = list(csv.DictReader(file))
        folder = root / split
        folder.mkdir(parents=True)
        for name, column in {"wav.scp": "path", "utt2spk": "speaker", "utt2keyword": "keyword"}.items():
            lines = (f"{r['id']} {corpus / r['path'] if column == 'path' else r[column]}\n" for r in rows)
            (folder / name).write_text("".join(lines))
    return root


def test_a_converted_corpus_has_the_figures_and_the_digest_of_its_manifests(
    tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Called(capsys, "corpus", "new", "ks", as_kaldi(tones, tmp_path / "data"), "--out", tmp_path / "new")
    assert made.code == 0, made.err
    assert "splits: the source's own, train=train, dev=dev, test=test" in made.out
    check = Called(capsys, "corpus", "check", "ks", "--data", tmp_path / "new")
    assert check.code == 0, check.err
    for data in (tones, tmp_path / "new"):
        out = ("--out", tmp_path / f"results-{data.name}")
        ran = Called(capsys, "run", "ks", "-u", "fbank_nonorm", "--data", data, *out, *SHORT)
        assert ran.code == 0, ran.err
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("results-*/**/result.json"))]
    assert len(records) == 2
    assert records[0]["metrics"] == records[1]["metrics"]
    assert records[0]["corpus"]["digest"] == records[1]["corpus"]["digest"]


def test_a_choice_that_is_left_open_is_one_sentence_with_the_option(
    tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = as_kaldi(tones, tmp_path / "data")
    called = Called(capsys, "corpus", "new", "asr", source, "--out", tmp_path / "new")
    assert called.code == 2 and "Traceback" not in called.err
    assert "the task needs the column text, and no column is it (found: keyword). Name it: --column text=" in called.err
    assert not (tmp_path / "new").exists()


def test_help_has_an_example_for_each_format(capsys: pytest.CaptureFixture[str]) -> None:
    printed = Called(capsys, "corpus", "new", "--help").out
    for word in ("Kaldi", "Hugging Face", "Lhotse", "class folders", "--column keyword=label", "--splits train="):
        assert word in printed
