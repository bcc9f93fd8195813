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


def born(pid: int) -> str:
    """Return what tells a process from a later one of the same number: when it began, or nothing where unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def lives(pid: int, began: str = "") -> bool:
    """Say whether a process of this machine is there: the one that `born` told of, where it did."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return not began or born(pid) in ("", began)
