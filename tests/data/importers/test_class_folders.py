"""Folders of audio whose names are the labels, divided into splits or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from superb_eval.data.importers import formats
from superb_eval.errors import UserError


def touch(root: Path, *names: str) -> Path:
    """Write empty files: an importer reads names alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_an_undivided_folder(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "yes/b.wav", "yes/a.FLAC", "no/a.mp3", "no/._a.mp3", "no/notes.txt", ".git/x.wav", "README.md"
    )
    assert formats.recognise(root) == "folder of class folders"
    source = formats.read(root)
    assert list(source.splits) == [""]
    assert [(row.id, row.audio, row.labels, row.speaker, row.location) for row in source.splits[""]] == [
        ("no/a", root / "no/a.mp3", {"label": "no"}, "", "no/a.mp3"),
        ("yes/a", root / "yes/a.FLAC", {"label": "yes"}, "", "yes/a.FLAC"),
        ("yes/b", root / "yes/b.wav", {"label": "yes"}, "", "yes/b.wav"),
    ]


def test_a_divided_folder(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{split}/{name}/1.wav" for split in ("train", "valid", "test") for name in ("yes", "no")))
    touch(root, "scripts/make.py", "speech/yes/1.wav")
    assert formats.split_names(root) == ["test", "train", "valid"]
    source = formats.read(root, ["valid"])
    assert [(row.id, row.labels["label"], row.location) for row in source.splits["valid"]] == [
        ("no/1", "no", "valid/no/1.wav"), ("yes/1", "yes", "valid/yes/1.wav"),
    ]  # fmt: skip


def test_linked_folders_and_files_are_read(tmp_path: Path) -> None:
    store = touch(tmp_path / "store", "yes/a.wav", "b.wav")
    root = touch(tmp_path / "root", "no/c.wav")
    (root / "yes").symlink_to(store / "yes")
    (root / "no/b.wav").symlink_to(store / "b.wav")
    assert [row.id for row in formats.read(root).splits[""]] == ["no/b", "no/c", "yes/a"]


def test_files_that_differ_in_their_endings_alone_are_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, "yes/a.wav", "yes/a.flac", "no/b.wav")
    with pytest.raises(UserError, match=r"yes/a\.wav: yes/a\.flac has the same name but for its ending"):
        formats.read(root)


@pytest.mark.parametrize(
    "names",
    [
        ["audio/1.wav", "audio/2.wav"],
        ["train/1.wav", "test/2.wav"],
        ["yes/1.wav", "no/notes.txt"],
        ["a/b/c/1.wav", "a/b/d/2.wav"],
        ["train/yes/1.wav", "other/2.wav"],
    ],
)
def test_other_folders_are_none(tmp_path: Path, names: list[str]) -> None:
    assert formats.recognise(touch(tmp_path, *names)) is None
