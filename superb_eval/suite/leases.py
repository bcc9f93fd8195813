"""Leases: which process executes a run, and whether it is still alive.

Unlike a file lock, a lease also holds between machines that share a folder over the network, and shows the run's
progress: its process increments a heartbeat in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AliasChoices, ConfigDict, Field

from superb_eval.runtime import processes
from superb_eval.suite import state_files
from superb_eval.suite.state_files import Count, Seconds

TIMEOUT = 60.0
"""Seconds without a heartbeat after which another machine's lease expires. On the same machine the pid is checked."""


@dataclass(frozen=True)
class Lease:
    """The process that executes a run, and its progress.

    `machine` is `processes.machine_id`, `started` the process's `processes.start_time`; `heartbeat` counts up while the
    run lasts, which it has for `seconds`. Aliases are the keys of earlier versions.
    """

    __pydantic_config__: ClassVar[ConfigDict] = state_files.STRICT

    token: str
    host: str
    machine: Annotated[str, Field(validation_alias=AliasChoices("machine", "place"))]
    pid: Annotated[int, Field(gt=0, lt=processes.MOST_PID)]
    started: Annotated[str, Field(validation_alias=AliasChoices("started", "born"))]
    heartbeat: Annotated[Count, Field(validation_alias=AliasChoices("heartbeat", "beat"))] = 0
    seconds: Seconds = 0.0
    step: Annotated[str, Field(validation_alias=AliasChoices("step", "stage"))] = ""
    done: Count = 0
    total: Count = 0
    postfix: Annotated[str, Field(validation_alias=AliasChoices("postfix", "beside"))] = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else f"the writer of the unreadable {self.host}"


def read(path: Path) -> Lease | None:
    """Return the lease in a file; None without a file.

    A file that can't be read may be another version's: it is a lease without heartbeat, which expires.
    """
    lease = state_files.load(Lease, path)
    if lease is None:
        with suppress(OSError):
            state = path.lstat()
            return Lease(f"{state.st_ino} {state.st_size} {state.st_mtime_ns}", str(path), "", 0, "")
    return lease


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
            return processes.is_alive(lease.pid) and processes.start_time(lease.pid) == lease.started
        heartbeat, since = self._last.setdefault(lease.token, (lease.heartbeat, self.now()))
        if heartbeat == lease.heartbeat:
            return self.now() - since < self.timeout
        self._last[lease.token] = (lease.heartbeat, self.now())
        self._advanced.add(lease.token)
        return True

    def is_certain(self, lease: Lease) -> bool:
        """Return whether `is_alive` is certain: the process is on this machine, or its heartbeat has advanced."""
        return lease.machine == processes.machine_id() or lease.token in self._advanced
