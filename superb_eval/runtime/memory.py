"""Memory of a device: how much is free, and how much a piece of work takes at its peak."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from superb_eval.runtime import allocator, devices
from superb_eval.runtime.lazy_torch import torch


def free_bytes(device: str) -> float:
    """Return the bytes that are free on a device; infinity where that is unknown, or the device isn't here."""
    if devices.missing(device):
        return math.inf
    if devices.kind(device) == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if devices.kind(device) == "mps":
        return float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return _available()


def peak_bytes(work: Callable[[], object], device: str) -> float | None:
    """Return the bytes that a piece of work adds at its peak; None where the system doesn't measure it."""
    if not reset_peak(device):
        return None
    before = _held(device)
    work()
    return max(0.0, peak_since_reset(device) - before)


def reset_peak(device: str) -> bool:
    """Forget the peak of a device's memory so far; return whether the system measures it."""
    if devices.kind(device) == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if not allocator.trim():  # with what earlier work left, later work would seem to need nothing
        return False
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux
    except OSError:  # another system, or a sandbox
        return False
    return True


def peak_since_reset(device: str) -> float:
    """Return the most bytes held at a time since `reset_peak`: allocated on a GPU, else resident in this process."""
    if devices.kind(device) == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return _field("/proc/self/status", "VmHWM")


def _held(device: str) -> float:
    if devices.kind(device) == "cuda":
        return float(torch.cuda.memory_allocated(device))
    return _field("/proc/self/status", "VmRSS")


def _available() -> float:
    """Return the machine's available memory, or what a control group leaves of it."""
    try:
        available = _field("/proc/meminfo", "MemAvailable")
    except (OSError, StopIteration):  # another system
        return math.inf
    try:
        return min(available, float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf8")))
    except (OSError, ValueError):  # there is none, or its limit is "max"
        return available


def _field(path: str, key: str) -> float:
    """Return a field of a file of /proc in bytes."""
    line = next(line for line in Path(path).read_text(encoding="utf8").splitlines() if line.startswith(key))
    return 1024.0 * int(line.split()[1])
