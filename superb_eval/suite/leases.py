"""Leases: which process executes a run, and whether it is still alive.

Unlike a file lock, a lease also holds between machines that share a folder over the network, and shows the run's
progress: its process increments a heartbeat in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from superb_eval.runtime import processes

TIMEOUT = 60.0
"""Seconds without a heartbeat after which another machine's lease expires. On the same machine the pid is checked."""


@dataclass(frozen=True)
class Lease:
    """The process that executes a run, and its progress.

    `machine` is `processes.machine_id`, `started` the process's `processes.start_time`; `heartbeat` counts up while the
    run lasts, which it has for `seconds`.
    """

    token: str
    host: str
    machine: str
    pid: int
    started: str
    heartbeat: int = 0
    seconds: float = 0.0
    step: str = ""
    done: int = 0
    total: int = 0
    postfix: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class BusyError(Exception):
    """Another live process executes the run."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(str(lease))
        self.lease = lease


@dataclass
class LeaseWatcher:
    """Distinguishes live from expired leases by the heartbeats it has observed; `now` is a monotonic clock."""

    timeout: float = TIMEOUT
    now: Callable[[], float] = time.monotonic
    _last: dict[str, tuple[int, float]] = field(default_factory=dict)
    _advanced: set[str] = field(default_factory=set)

    def is_alive(self, lease: Lease) -> bool:
        """Return whether the lease's process runs on this machine, or has sent a heartbeat within `timeout`."""
        if lease.machine == processes.machine_id():
            return processes.is_alive(lease.pid, lease.started)
        heartbeat, since = self._last.setdefault(lease.token, (lease.heartbeat, self.now()))
        if heartbeat == lease.heartbeat:
            return self.now() - since < self.timeout
        self._last[lease.token] = (lease.heartbeat, self.now())
        self._advanced.add(lease.token)
        return True

    def is_certain(self, lease: Lease) -> bool:
        """Return whether `is_alive` is certain: the process is on this machine, or its heartbeat has advanced."""
        return lease.machine == processes.machine_id() or lease.token in self._advanced
