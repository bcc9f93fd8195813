"""Out of memory: recognising the errors, choosing what follows, and returning memory.

Where no other run of a suite shares the device, a batch is computed in parts. Beside others that would be the wrong
answer, since their memory is free again soon: the run ends, and the suite resumes it from its checkpoint later.
"""

from __future__ import annotations

import gc
import os
import re
import sys
import traceback

SHARED = "SUPERB_EVAL_SHARED_DEVICE"
"""Environment variable of a suite's workers, set where other runs use the device, or the machine's memory, too."""

_MESSAGES = re.compile(
    r"DefaultCPUAllocator: can't allocate memory|_ALLOC(ATION)?_FAILED|(CUDA|driver) error: out of memory"
    r"|MPS backend out of memory|CUBLAS_STATUS_NOT_INITIALIZED when calling .cublasCreate"
)
"""Texts of torch's out-of-memory errors that have no class of their own; a handle of cuBLAS needs memory too."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or the one that caused it, means that the machine's or the GPU's memory ran out."""
    torch = sys.modules.get("torch")  # an error before torch is imported is none of its own
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    if isinstance(error, RuntimeError) and _MESSAGES.search(str(error)):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def calls_for_parts(error: BaseException) -> bool:
    """Return whether a batch is computed in parts: memory ran out, and no other run shares it."""
    return is_out_of_memory(error) and SHARED not in os.environ


def calls_for_waiting(error: BaseException) -> bool:
    """Return whether a run waits until others have finished: memory ran out, and they share it."""
    return is_out_of_memory(error) and SHARED in os.environ


def first_line(error: BaseException) -> str:
    """Return an error's first line: torch's go on for many."""
    return (str(error) or type(error).__name__).splitlines()[0]


def release(error: BaseException) -> None:
    """Free what the frames of an error's traceback hold, and torch's cache of GPU memory."""
    traceback.clear_frames(error.__traceback__)
    empty_cache()


def empty_cache() -> None:
    """Return GPU memory that torch holds unused, so that other processes can have it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
