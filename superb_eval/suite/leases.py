"""Who runs a cell, and whether that process still lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from superb_eval.runtime import processes

PATIENCE = 60.0
"""Seconds without a beat after which a claim of another machine is dead. On one machine its process is asked for."""


@dataclass(frozen=True)
class Lease:
    """Who runs a cell, and how far it is. `beat` counts on while it runs, which it has for `seconds`."""

    token: str
    host: str
    place: str
    pid: int
    born: str
    beat: int = 0
    seconds: float = 0.0
    stage: str = ""
    done: int = 0
    total: int = 0
    beside: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class BusyError(Exception):
    """Another process runs the cell, and lives."""

    def __init__(self, claim: Lease) -> None:
        super().__init__(str(claim))
        self.claim = claim


@dataclass
class LeaseWatcher:
    """Tells claims that live from dead ones by what it has seen of them itself; `now` never runs backwards."""

    patience: float = PATIENCE
    now: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    _heard: set[str] = field(default_factory=set)

    def lives(self, claim: Lease) -> bool:
        """Say whether the process behind a claim is there, or has been heard of within `patience`."""
        if claim.place == processes.machine_id():
            return processes.is_alive(claim.pid, claim.born)
        beat, since = self._seen.setdefault(claim.token, (claim.beat, self.now()))
        if beat == claim.beat:
            return self.now() - since < self.patience
        self._seen[claim.token] = (claim.beat, self.now())
        self._heard.add(claim.token)
        return True

    def sure(self, claim: Lease) -> bool:
        """Say whether that is known: its process is of this machine, or was heard to count on."""
        return claim.place == processes.machine_id() or claim.token in self._heard
