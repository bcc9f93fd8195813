"""A library that does not load ends in one sentence, whoever imports it; an error of ours is seen in full."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from superb_eval.runtime import system_errors

MISMATCH = "PyTorch and TorchAudio were compiled with different CUDA versions."


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for modules that stand in for installed ones."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def error_of(package: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> Exception:
    """What importing a package of this code raises."""
    for name in [n for n in sys.modules if n.partition(".")[0] == package.name]:
        monkeypatch.delitem(sys.modules, name)
    package.mkdir()
    (package / "__init__.py").write_text(code)
    with pytest.raises((RuntimeError, OSError)) as caught:
        importlib.import_module(package.name)
    return caught.value


@pytest.mark.parametrize("code", [f"raise RuntimeError({MISMATCH!r})", f"raise OSError({MISMATCH!r})"])
def test_a_library_that_does_not_load_is_named(packages: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    sentence = system_errors.sentence(error_of(packages / "torchaudio", code, monkeypatch))
    assert sentence is not None and sentence.startswith("torchaudio can't be imported (") and MISMATCH[:-1] in sentence
    assert "superb-eval doctor" in sentence


def test_a_library_of_charts_that_finds_no_home_folder_is_named(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = error_of(packages / "altair", "raise RuntimeError('Could not determine home directory.')", monkeypatch)
    expected = "altair can't be imported (RuntimeError: Could not determine home directory)."
    assert (system_errors.sentence(error) or "").startswith(expected)


def test_the_first_cause_is_named(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers imports torchaudio, and hides why that fails behind an error of its own."""
    cause = error_of(packages / "torchaudio", f"raise RuntimeError({MISMATCH!r})", monkeypatch)
    error = ModuleNotFoundError("Could not import module 'HubertModel'.")
    error.__cause__ = cause
    assert (system_errors.sentence(error) or "").startswith("torchaudio can't be imported (RuntimeError: PyTorch and")


def test_a_shared_library_that_is_missing_is_named(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a CPU-only torch, torchaudio's CUDA build finds no libc10_cuda.so."""
    code = "raise OSError('Could not load this library') from OSError('libc10_cuda.so: cannot open it')"
    sentence = system_errors.sentence(error_of(packages / "torchaudio", code, monkeypatch)) or ""
    assert sentence.startswith("torchaudio can't be imported (OSError: libc10_cuda.so: cannot open it).")


def test_other_errors_are_seen_in_full(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert system_errors.sentence(error_of(packages / "own_encoder", "raise RuntimeError('mine')", monkeypatch)) is None
    assert system_errors.sentence(ValueError("a defect")) is None
