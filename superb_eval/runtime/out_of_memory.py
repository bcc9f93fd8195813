"""Out of memory: recognising the errors, and returning memory so that a smaller batch can be tried."""

from __future__ import annotations

import ctypes
import gc
import traceback
from collections.abc import Callable
from functools import cache

_MESSAGES = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""Texts of torch's out-of-memory errors that have no class of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the machine's or the GPU's memory ran out."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def release(error: BaseException) -> None:
    """Free what the frames of an error's traceback hold, and torch's cache of GPU memory."""
    import torch

    traceback.clear_frames(error.__traceback__)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def trim_memory() -> None:
    """Return free memory to the system: glibc retains it between blocks in use, and a long extraction would grow."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], object] | None:
    """Return malloc_trim(3), where the C library has it."""
    try:
        function: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
        return function
    except (AttributeError, OSError, TypeError):
        return None
