"""Which process is meant: one of this machine that lives, one of it that is dead, or one of another machine."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path


@cache
def here() -> str:
    """Return twelve hexadecimal digits for this machine since it was last started, and this container of it.

    Two machines may share a name, and two containers a machine: numbers of processes mean the same only where all of
    host name, start of the system and space of process numbers agree.
    """
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf8"))
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]


GONE = frozenset("ZX")
"""States of a process that nobody has waited for yet, as in a container whose first process waits for none."""


def born(pid: int) -> str:
    """Return what tells a process from a later one of the same number: when it began, or nothing where unknown."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def lives(pid: int, began: str = "") -> bool:
    """Say whether a process of this machine runs: the one that `born` told of, where it did."""
    fields = _stat(pid)
    if fields:
        return fields[0] not in GONE and began in ("", fields[19])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and another user's
        return True
    return True


def _stat(pid: int) -> list[str]:
    """Return what Linux tells of a process from its state on (proc(5)); elsewhere, and where there is none, nothing."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
