"""The official layout of SID: the split of the published list."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from superb_eval.corpora import load_corpus
from superb_eval.corpora.official import voxceleb1
from superb_eval.data.manifest import Corpus
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from tests.corpora.official.linked import assert_links_are_followed

LINES = [
    "1 id10001/1zcIwhmdeo4/00001.wav",
    "1 id10002/_-Bx01KQTcc/00003.wav",
    "2 id10002/_-Bx01KQTcc/00001.wav",
    "1 id10270/5r0dWxy17C8/00002.wav",
    "3 id10001/1zcIwhmdeo4/00002.wav",
    "2 id10001/7w0IBEWc9Qw/00001.wav",
    "3 id10270/5r0dWxy17C8/00009.wav",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small official layout; one speaker is in the archive called test, as forty are."""
    for line in LINES:
        archive = "test" if "id10270" in line else "dev"
        path = tmp_path / "VoxCeleb1" / archive / "wav" / line.split()[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(1600), 16_000)
    write(tmp_path, LINES)
    return tmp_path


def write(root: Path, lines: list[str], name: str = "iden_split.txt") -> None:
    (root / "VoxCeleb1" / name).write_text("\n".join(lines) + "\n")


def load(root: Path) -> Corpus:
    return load_corpus.open_corpus("sid", root, ("speaker",), CorpusSettings())


def test_the_list_gives_the_splits(root: Path) -> None:
    corpus = load(root)
    found = {name: [u.id for u in split] for name, split in corpus.splits.items()}
    assert found == {
        "train": ["id10001-1zcIwhmdeo4-00001", "id10002-_-Bx01KQTcc-00003", "id10270-5r0dWxy17C8-00002"],
        "dev": ["id10002-_-Bx01KQTcc-00001", "id10001-7w0IBEWc9Qw-00001"],
        "test": ["id10001-1zcIwhmdeo4-00002", "id10270-5r0dWxy17C8-00009"],
    }
    for split in corpus.splits.values():
        for u in split:
            assert u.clip.path.is_file() and u.speaker == u.labels["speaker"] == u.id.split("-")[0]
    assert corpus.expected == {"train": 138_361, "dev": 6_904, "test": 8_251}
    assert [u.line for u in corpus.splits["test"]] == [5, 7]


def test_the_splits_are_those_of_s3prl(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _s3prl(monkeypatch)
    monkeypatch.setattr(dataset, "CACHE_PATH", str(tmp_path / "cache"))
    corpus = load(root)
    for mode, split in corpus.splits.items():
        theirs = dataset.SpeakerClassifiDataset(mode, root / "VoxCeleb1", root / "VoxCeleb1" / "iden_split.txt")
        assert [str(u.clip.path) for u in split] == theirs.dataset
        assert [int(u.speaker[2:]) - 10001 for u in split] == theirs.label


def _s3prl(monkeypatch: pytest.MonkeyPatch) -> Any:
    """s3prl's module, without the package that it imports and never uses."""
    util = types.ModuleType("librosa.util")
    util.find_files = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "librosa", types.ModuleType("librosa"))
    monkeypatch.setitem(sys.modules, "librosa.util", util)
    from s3prl.downstream.voxceleb1 import dataset

    return dataset


def test_the_list_may_have_s3prls_name_and_be_beside_the_corpus(root: Path) -> None:
    expected = load(root)
    (root / "VoxCeleb1" / "iden_split.txt").rename(root / "veri_test_class.txt")
    found = load(root)
    assert [[u.id for u in s] for s in found.splits.values()] == [[u.id for u in s] for s in expected.splits.values()]


def test_every_bad_line_is_named(root: Path) -> None:
    write(root, [*LINES, "4 id10001/x/00001.wav", "1 ../../../etc/00001.wav", "2 id10003/gone/00001.wav", LINES[0]])
    with pytest.raises(UserError) as caught:
        load(root)
    message = str(caught.value)
    assert "iden_split.txt: 4 bad row(s)" in message
    assert "line 8: '4 id10001/x/00001.wav' is not of the form" in message
    assert "line 9: '1 ../../../etc/00001.wav' is not of the form" in message
    assert "line 10: id10003/gone/00001.wav is in neither dev/wav nor test/wav" in message
    assert "line 11: id10001/1zcIwhmdeo4/00001.wav appears twice" in message
    assert "distributes VoxCeleb1 on request" in message


def test_missing_parts_are_named(root: Path) -> None:
    write(root, LINES[:2])
    with pytest.raises(UserError, match="no line begins with 2, which marks dev"):
        load(root)
    (root / "VoxCeleb1" / "iden_split.txt").unlink()
    with pytest.raises(UserError, match=r"has no iden_split\.txt or veri_test_class\.txt"):
        load(root)
    write(root, LINES)
    (root / "VoxCeleb1" / "test").rename(root / "elsewhere")
    with pytest.raises(UserError, match=r"test/wav: no such folder\. Expected VoxCeleb1/\{dev,test\}/wav"):
        load(root)


def test_the_layout_is_recognised(root: Path, tmp_path: Path) -> None:
    assert load_corpus.is_official("sid", root) and voxceleb1.present(root)
    assert not load_corpus.is_official("sid", root / "VoxCeleb1")
    with pytest.raises(UserError, match=rf"Did you mean --data {root}\?"):
        load(root / "VoxCeleb1")


def test_links_to_folders_and_files_are_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert_links_are_followed(load, root, tmp_path_factory.mktemp("links") / "copies")
