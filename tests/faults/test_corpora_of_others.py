"""Corpora that somebody else made: pipes, loops and devices for files, JSON nested deep, labels of any letters."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.campaigns.commands import type_command

DEEP = "[" * 100_000
Damage = Callable[[Path], object]


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


FILES: dict[str, Damage] = {
    "a pipe": pipe,
    "a loop": lambda path: link(path, path.name),
    "a device": lambda path: link(path, "/dev/zero"),
    "a dangling link": lambda path: link(path, "gone"),
    "nested deep": lambda path: path.write_text(DEEP),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a list": lambda path: path.write_text("[1, 2]"),
}


@pytest.fixture
def corpus(tones: Path, tmp_path: Path) -> Path:
    shutil.copytree(tones, tmp_path / "corpus")
    (tmp_path / "corpus/corpus.json").write_text('{"name": "theirs"}')
    return tmp_path / "corpus"


@pytest.mark.parametrize("damage", FILES)
@pytest.mark.parametrize("name", ["corpus.json", "ks/train.csv"])
def test_a_file_of_the_corpus_is_refused_by_name(corpus: Path, name: str, damage: str) -> None:
    FILES[damage](corpus / name)
    called = type_command("corpus", "check", "ks", "--data", corpus)
    assert called.refused and Path(name).parts[0] in called.err, called.err


@pytest.mark.parametrize("damage", ["a pipe", "a loop", "a device", "a dangling link"])
def test_audio_that_is_no_file_is_a_bad_row(corpus: Path, damage: str) -> None:
    audio = next(path for path in corpus.rglob("*") if path.suffix in (".wav", ".flac"))
    FILES[damage](audio)
    called = type_command("corpus", "check", "ks", "--data", corpus)
    assert called.refused and audio.name in called.out + called.err


def test_labels_of_any_letters_reach_no_terminal(corpus: Path) -> None:
    for split in ("train", "dev", "test"):
        path = corpus / "ks" / f"{split}.csv"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], *(f"{line}\x1b[31m\u202e" for line in lines[1:])]) + "\n")
    called = type_command("corpus", "check", "ks", "--data", corpus)
    assert called.code in (0, 2) and "Traceback" not in called.err
    assert "\x1b" not in called.out + called.err and "\u202e" not in called.out + called.err


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ('{"made": 7}', "isn't as `corpus new` writes it"),
        ('{"made": {"ks": 7}}', "isn't as `corpus new` writes it"),
        ('{"made": {"ks": {"settings": {}, "summary": {}}}}', "isn't as `corpus new` writes it"),
        (DEEP, "nested too deeply"),
    ],
)
def test_a_description_that_others_wrote_is_checked(tmp_path: Path, tones: Path, made: str, sentence: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/corpus.json").write_text(made)
    called = type_command("corpus", "new", "ks", tones, "--out", tmp_path / "out")
    assert called.refused and sentence in called.err, called.err
    assert (tmp_path / "out/corpus.json").read_text() == made
