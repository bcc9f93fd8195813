"""Folders in the layout of Hugging Face's `audiofolder`: tables of three kinds, split folders, bad rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from superb_eval.corpora.load_corpus import open_corpus
from superb_eval.data.importers import formats
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from superb_eval.export import hf_dataset
from superb_eval.runtime.progress import NoProgress


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def problem(root: Path) -> str:
    with pytest.raises(UserError) as error:
        formats.read(root)
    return str(error.value)


def test_what_corpus_export_writes_is_read_back(tones: Path, tmp_path: Path) -> None:
    corpus = open_corpus("ks", tones, ("keyword",), CorpusSettings())
    hf_dataset.export(corpus, "ks", tmp_path, NoProgress())
    assert formats.recognise(tmp_path) == "Hugging Face audiofolder"
    source = formats.read(tmp_path)
    assert set(source.splits) == {"train", "validation", "test"}
    for ours, name in hf_dataset.FOLDERS.items():
        assert [(row.id, row.speaker, row.labels) for row in source.splits[name]] == [
            (u.id, u.speaker, u.labels) for u in corpus.splits[ours]
        ]


def test_lines_of_json_with_lists_and_numbers(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    rows = [
        {"file_name": "a.wav", "text": " HI ", "tags": ["O", "B"], "age": 3, "speaker": "ann"},
        {"file_name": "b.wav", "text": None, "tags": [], "age": 4.5, "speaker": "bob"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    source = formats.read(tmp_path)
    assert [(row.id, row.speaker, row.labels, row.location) for row in source.splits[""]] == [
        ("a", "ann", {"text": "HI", "tags": "O B", "age": "3"}, "metadata.jsonl, line 1"),
        ("b", "bob", {"text": "", "tags": "", "age": "4.5"}, "metadata.jsonl, line 3"),
    ]


def test_one_table_is_divided_by_the_folders_of_its_files(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.wav", "train/b.wav", "test/a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/a.wav,x\ntest/a.wav,y\ntrain/b.wav,y\n")
    assert formats.split_names(tmp_path) == ["train", "test"]
    splits = formats.read(tmp_path).splits
    assert {name: [(row.id, row.labels["label"]) for row in rows] for name, rows in splits.items()} == {
        "train": [("a", "x"), ("b", "y")],
        "test": [("a", "y")],
    }
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/a.wav,x\ngone.wav,y\n")
    assert formats.split_names(tmp_path) == [""]
    assert "metadata.csv, line 3: no such file" in problem(tmp_path)


CASES = {
    "file_name,label\nup/../../x.wav,1\n": "leads out of the corpus folder",
    "file_name,label\n/etc/passwd,1\n": "leads out of the corpus folder",
    "file_name,label\n,1\n": "metadata.csv, line 2: empty file_name",
    "file_name,label\na.wav,1,2\n": "line 2 has 3 cells where there are 2 columns",
    "path,label\na.wav,1\n": "has no column file_name (found: path, label)",
}


@pytest.mark.parametrize("table", CASES)
def test_bad_rows_are_named(tmp_path: Path, table: str) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / "metadata.csv").write_text(table)
    assert CASES[table] in problem(tmp_path)


@pytest.mark.parametrize(("line", "expected"), [("{", "line 2 is not valid JSON"), ("[1]", "line 2 is no JSON object")])
def test_bad_lines_of_json_are_named(tmp_path: Path, line: str, expected: str) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.wav"}\n' + line)
    assert expected in problem(tmp_path)
