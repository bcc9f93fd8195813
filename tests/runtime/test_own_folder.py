"""What isn't ours by name and marker is never touched: the folders of all commands that fill one, as typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from superb_eval.errors import UserError
from superb_eval.runtime import own_folder
from tests.campaigns.commands import type_command
from tests.pretraining.conftest import TINY, write_speech

USERS = "a user's own"


@pytest.mark.parametrize("entry", ["log.csv", "ks/train.csv", ".superb-eval", ".hidden"])
def test_a_folder_that_holds_something_else_is_refused_by_name(tmp_path: Path, entry: str) -> None:
    (tmp_path / entry).parent.mkdir(exist_ok=True)
    (tmp_path / entry).write_text(USERS)
    with pytest.raises(UserError, match=rf"holds {Path(entry).parts[0]}/?, which this command didn't write"):
        own_folder.claim(tmp_path, "training")
    assert contents(tmp_path) == {entry: USERS.encode()}


def test_a_new_an_empty_and_our_own_folder_are_ours(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text(USERS)
    for folder in (tmp_path, tmp_path / "a" / "new"):
        own_folder.claim(folder, "training")
        (folder / "log.csv").write_text("step")
        own_folder.claim(folder, "training")
        marker = json.loads((folder / own_folder.MARKER).read_text())
        assert marker == {"written_by": "superb-eval", "kind": "training"}
    with pytest.raises(UserError, match="holds 'training' by superb-eval, not 'corpus'"):
        own_folder.check(tmp_path, "corpus")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(USERS)
    with pytest.raises(UserError, match=r"file: is a file\. Name a folder"):
        own_folder.claim(tmp_path / "file", "training")


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files in a folder, by path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Audio for training encoders, and class folders of two words by ten speakers."""
    folder = tmp_path_factory.mktemp("sources")
    write_speech(folder / "speech", 4)
    for number in range(40):
        path = folder / "words" / ("no", "yes")[number % 2] / f"spk{number // 4}_nohash_{number % 4}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.random.default_rng(number).standard_normal(1600), 16_000)
    return folder


TRAINING = [word for setting in (*TINY, "optim.steps=1") for word in ("-o", setting)]
STUDENT = ["-o", "optim.steps=1", "-o", "data.batch_seconds=4", "-o", "loss.layers=[1]", "-o", "student.initialise=[]"]
COMMANDS = {
    "pretrain": ["pretrain", "hubert_toy", "--data", "audio={sources}/speech", "--loggers", "none", *TRAINING],
    "distill": [
        *("distill", "distilhubert_toy", "--data", "audio={sources}/speech", "--loggers", "none"),
        *("--teacher", "hubert_nano@random", *STUDENT),
    ],
    "new": ["corpus", "new", "ks", "{sources}/words", "--speaker", r"^(\w+)_nohash"],
    "export": ["corpus", "export", "ks", "--data", "{tones}"],
}
ENTRIES = {"pretrain": "log.csv", "distill": "recipe.yaml", "new": "ks/train.csv", "export": "train/a-0123456789.flac"}


Typed = Callable[[str, Path], list[str]]


@pytest.fixture
def typed(sources: Path, tones: Path) -> Typed:
    """The words of a command for a folder to write."""
    places = {"{sources}": str(sources), "{tones}": str(tones)}

    def words(command: str, out: Path) -> list[str]:
        found = COMMANDS[command]
        for name, place in places.items():
            found = [word.replace(name, place) for word in found]
        return [*found, "--out", str(out)]

    return words


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_touches_nothing_that_it_did_not_write(command: str, typed: Typed, tmp_path: Path) -> None:
    words, entry = typed(command, tmp_path / "out"), ENTRIES[command]
    (tmp_path / "out" / entry).parent.mkdir(parents=True)
    (tmp_path / "out" / entry).write_text(USERS)
    called = type_command(*words)
    assert called.refused and str(tmp_path / "out") in called.err, called.err
    assert contents(tmp_path / "out") == {entry: USERS.encode()}


@pytest.mark.parametrize("command", ["new", "export"])
def test_a_command_goes_on_in_its_own_folder(command: str, typed: Typed, tmp_path: Path) -> None:
    for _ in range(2):
        called = type_command(*typed(command, tmp_path / "out"))
        assert called.code == 0, called.err
    other = "export" if command == "new" else "new"
    assert type_command(*typed(other, tmp_path / "out")).refused
