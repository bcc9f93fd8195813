"""Atomic files: what is written is as readable as any other file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from superb_eval.runtime import atomic_files, safetensors_io

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX systems")


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=lambda umask: f"{umask:03o}")
def mode(request: pytest.FixtureRequest) -> Iterator[int]:
    """The permissions of new files under several settings of the user's."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_tensors_can_be_read_by_whom_the_umask_admits(mode: int, tmp_path: Path) -> None:
    """safetensors itself gives its files to their owner alone, so that nobody else could use a shared store."""
    safetensors_io.write(tmp_path / "shard.safetensors", {"a": torch.ones(2)})
    assert permissions(tmp_path / "shard.safetensors") == mode


def test_so_can_what_any_library_writes(mode: int, tmp_path: Path) -> None:
    def save(path: Path) -> None:
        path.unlink()
        path.write_text("text")
        path.chmod(0o600)

    atomic_files.write(tmp_path / "a", save)
    atomic_files.write_text(tmp_path / "b", "text")
    atomic_files.create_text(tmp_path / "c", "text")
    assert [permissions(tmp_path / name) for name in "abc"] == [mode] * 3
