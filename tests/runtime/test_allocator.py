"""Freed memory: kept for the next tensors, and returned to the system where asked to."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from superb_eval.runtime import allocator
from tests import memory

FAULTS = """
import resource, sys
from superb_eval.runtime import allocator
kept = sys.argv[1] == "keep" and allocator.reuse_freed()
faults = []
for _ in range(20):
    block = bytearray(64 << 20)
    del block
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(kept, faults[-1] - faults[0])
"""
"""Prints how many pages of memory 19 blocks of 64 MiB need, after a first one."""

on_glibc = pytest.mark.skipif(
    not allocator.trim() or not Path("/proc/self/status").is_file(), reason="needs glibc on Linux"
)


def faults(choice: str, **settings: str) -> tuple[bool, int]:
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS, choice]
    answer = subprocess.run(command, env=environment | settings, capture_output=True, text=True, check=True)
    kept, count = answer.stdout.split()
    return kept == "True", int(count)


@on_glibc
def test_freed_memory_is_used_again_without_the_system() -> None:
    kept, count = faults("keep")
    assert kept and count < 100
    assert faults("return")[1] > 1000, "the system clears and maps the pages of each block"


@on_glibc
@pytest.mark.parametrize("setting", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}])
def test_settings_of_a_user_stay(setting: dict[str, str]) -> None:
    kept, count = faults("keep", **setting)
    assert not kept and count > 1000


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not allocator.reuse_freed() and not allocator.trim()


@on_glibc
def test_free_memory_between_blocks_in_use_is_returned_to_the_system() -> None:
    blocks = [b"x" * (60_000 + k % 7) for k in range(4_000)]  # 240 MB, each below what the C library would map alone
    before = memory.anonymous()
    in_use = blocks[::100]
    del blocks
    allocator.trim()
    assert memory.anonymous() < before - 150_000_000 and len(in_use) == 40
