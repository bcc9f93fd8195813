"""A new upstream as it is written: it opens, keeps the contract and passes its own test, in a checkout and outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from superb_eval.analysis.upstream_check import check_upstream
from superb_eval.cli import new_upstream
from superb_eval.errors import UserError
from upstreams import registry

ROOT = Path(__file__).parents[2]


def test_outside_a_checkout_it_works_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files, address = new_upstream.write("my_encoder")
    assert address == "my_encoder.py:MyEncoder" and files == (
        Path("my_encoder.py"),
        Path("test_my_encoder.py"),
    )
    report = check_upstream(address)
    assert not report.broken, report
    assert "three convolutions" in str(report) and "18 of 18 rules hold" in str(report)
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_encoder.py"]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 passed" in result.stdout, result.stdout + result.stderr


def test_in_a_checkout_it_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("upstreams", "tests/upstreams"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "upstreams/registry.py").touch()
    monkeypatch.chdir(tmp_path)
    files, address = new_upstream.write("my_encoder")
    assert address == "my_encoder"
    assert files == (Path("upstreams/my_encoder.py"), Path("tests/upstreams/test_my_encoder.py"))
    monkeypatch.setattr("upstreams.__path__", [*registry.upstreams.__path__, str(tmp_path / "upstreams")])
    monkeypatch.delitem(sys.modules, "upstreams.my_encoder", raising=False)
    upstream = registry.load("my_encoder")
    assert upstream.count_parameters() == upstream.card.parameters
    assert "my_encoder" in registry.names()
    assert 'ADDRESS = "my_encoder"' in files[1].read_text()


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["linted", "formatted"])
def test_what_is_written_is_clean(command: list[str], tmp_path: Path) -> None:
    """As the files of this repository are, in the places that it would have there."""
    (encoder, test), _ = new_upstream.write("my_encoder", tmp_path)
    for path, place in ((encoder, "upstreams"), (test, "tests/upstreams")):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--stdin-filename", f"{place}/{path.name}", "-"]
        result = subprocess.run(ruff, cwd=ROOT, input=path.read_text(), capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MyEncoder", "Expected lower case and underscores"),
        ("my-encoder", "Expected lower case and underscores"),
        ("hubert", "'hubert' is taken"),
        ("registry", "'registry' is taken"),
        ("hf", "'hf' is taken"),
    ],
)
def test_a_name_that_will_not_do(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        new_upstream.write(name, tmp_path)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    new_upstream.write("my_encoder", tmp_path)
    before = (tmp_path / "my_encoder.py").read_text()
    with pytest.raises(UserError, match="is there already"):
        new_upstream.write("my_encoder", tmp_path)
    assert (tmp_path / "my_encoder.py").read_text() == before


def test_its_weights_are_seeded(tmp_path: Path) -> None:
    _, address = new_upstream.write("my_encoder", tmp_path)
    first, other = (registry.load(f"{address}@random:{seed}")([torch.ones(800)])["hidden_states"][0] for seed in (1, 2))
    assert not torch.equal(first, other)
