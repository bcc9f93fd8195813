"""glibc's allocator: a process keeps freed memory for its next tensors, and returns it to the system where asked to.

By default each large tensor is mapped anew and unmapped when it is freed, and the system clears its pages every time:
a quarter of an update of SD's head (`tests/benchmarks/allocator.py`). On other C libraries nothing changes.
"""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of mallopt(3): the free bytes at which memory is returned, and the most blocks that are mapped alone."""

KEPT_BYTES = 2**30
"""Beyond them, free memory at the heap's end is returned at once."""


def reuse_freed() -> bool:
    """Keep freed memory in this process; return whether: a user's settings of the allocator stay as they are."""
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(set_option(MMAP_MAX, 0) and set_option(TRIM_THRESHOLD, KEPT_BYTES))


def trim() -> bool:
    """Return free memory to the system; return whether the C library can.

    It is retained between blocks in use, and a long extraction would grow.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return True
