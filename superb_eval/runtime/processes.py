"""Identity of processes: of this machine and alive, of this machine and dead, or of another machine."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

DEAD_STATES = frozenset("ZX")
"""States of a process that is over, though its parent has not waited for it, as in a container without init."""


MOST_PID = 2**31
"""No system has a process id as large."""


@cache
def machine_id() -> str:
    """Return twelve hexadecimal digits that identify this machine since it was last started, and this container of it.

    Two machines may share a name, and two containers a machine: process ids are comparable only where host name, boot
    and pid namespace all agree.
    """
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf8"))
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]


def start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; it differs where a pid was reused. Empty if unknown."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine has that id and runs."""
    if not 0 < pid < MOST_PID:  # to kill(2), 0 and less are groups of processes
        return False
    fields = _stat(pid)
    if fields:
        return fields[0] not in DEAD_STATES
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        return True
    return True


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on (proc(5)); none without such a process, or off Linux."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
