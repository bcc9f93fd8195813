"""The words of a command line, before they are parsed."""

from __future__ import annotations

from pathlib import Path

import pytest

from superb_eval.cli import command


def test_a_home_folder_behind_an_equals_sign_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bash leaves `--out=~/x` as it is, which would name a folder called ~."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command._in_home("--out=~/results") == f"--out={tmp_path}/results"
    words = ("--out=results~", "corpus.root=~/x", "~/x", "--fresh", "--against=a~b")
    assert [command._in_home(word) for word in words] == list(words)
