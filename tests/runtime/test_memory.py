"""Memory at its peak, as the system measures it."""

from __future__ import annotations

import pytest

from superb_eval.runtime import allocator, memory

BYTES = 64 << 20


def test_the_peak_holds_what_was_given_back_since() -> None:
    if not memory.reset_peak("cpu"):
        pytest.skip("this system measures no peak")
    before = memory.peak_since_reset("cpu")
    held = bytearray(b"x" * BYTES)
    del held
    assert 0.9 * BYTES < memory.peak_since_reset("cpu") - before < 4 * BYTES
    assert memory.reset_peak("cpu") and memory.peak_since_reset("cpu") < before + 0.5 * BYTES, "forgotten"


def test_peak_bytes_are_those_of_the_work_alone() -> None:
    added = memory.peak_bytes(lambda: len(b"x" * BYTES), "cpu")
    assert added is None or 0.9 * BYTES < added < 2 * BYTES


def test_no_peak_is_measured_where_freed_memory_cannot_be_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "trim", lambda: False)
    assert not memory.reset_peak("cpu") and memory.peak_bytes(lambda: None, "cpu") is None
