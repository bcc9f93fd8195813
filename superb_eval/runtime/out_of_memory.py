"""Memory that runs out: how it is recognised, and what is done so that less of it is needed."""

from __future__ import annotations

import ctypes
import gc
import traceback
from collections.abc import Callable
from functools import cache

_WORDS = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What torch says of it in errors that have no class of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out: the machine's or the GPU's."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def release(error: BaseException) -> None:
    """Give back what the frames that an error came through hold, and what is kept in case it is wanted again."""
    import torch

    traceback.clear_frames(error.__traceback__)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def trim_memory() -> None:
    """Give the system what is free: glibc keeps it between blocks in use, and a long extraction would seem to grow."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], object] | None:
    """Return malloc_trim(3), where the C library has it."""
    try:
        found: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
        return found
    except (AttributeError, OSError, TypeError):
        return None
