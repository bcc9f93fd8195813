"""Cores and threads: how many this process may use, and torch's settings for small machines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def available_cores() -> int:
    """Return the number of cores that this process may use: those of its CPU affinity, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_defaults() -> None:
    """Let idle OpenMP threads sleep instead of spin, unless the user has set `OMP_WAIT_POLICY`.

    With spinning, the default, two threads on two cores trained a 12-layer HuBERT 7 x slower than one thread, because
    the threads competed for the cores they were waiting on. No effect once torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def thread_settings() -> dict[str, str | int]:
    """Return the settings in force, for the run record."""
    import torch

    return {"torch_threads": torch.get_num_threads(), "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "unset")}


@contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """Let torch use at most `count` threads while the context lasts.

    A head on pooled features is too small for more than one: its matrix products take microseconds, and next to another
    busy process two threads took 30 to 50 ms a step where one took 5 (two cores).
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(min(before, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Let torch treat numbers below 1e-38 as zero while the context lasts, on this thread.

    CTC's gradients hold many of them once a head is confident, and processors are slow at them: the backward pass
    through a small LSTM took 174 ms with them and 6 ms without.
    """
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
