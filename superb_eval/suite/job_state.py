"""The ledger of a results folder: what is planned, what runs and by whom, what is done, what failed and why.

Each of these is a small JSON file in `OUT/.suite`, named by its cell and written whole, so that suites, workers and
boards agree without talking, on any number of machines that share the folder. A claim tells of the process that runs a
cell; that process counts on in it, every few seconds. Whether the counter moves is judged by the clock of whoever
looks, from when that clock was started: no two clocks are compared, and none may be wrong.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files, processes
from superb_eval.suite import jobs
from superb_eval.suite.jobs import PLACE, Job
from superb_eval.suite.leases import PATIENCE, BusyError, Lease, LeaseWatcher

BEAT = 2.0
"""Seconds between two beats of a claim."""

TAIL = 20
"""Lines of a log that are kept of a failure."""


@dataclass(frozen=True)
class Failure:
    """Why a cell failed, in a sentence, and the last lines of its log; `mendable`: its user can do something."""

    sentence: str
    mendable: bool
    host: str
    tail: str = ""


@dataclass(frozen=True)
class Receipt:
    """What became of a finished cell: its run's folder under the results folder, its figures in words, the seconds."""

    cell: str
    signature: str
    run: str
    figures: str
    seconds: float


class JobStates:
    """The ledger of one results folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / PLACE

    def plan(self, wanted: list[Job]) -> None:
        """Note cells that are to be run, and forget how they failed or what they came to before."""
        for job in wanted:
            if jobs.finished(job) is None:
                job.receipt().unlink(missing_ok=True)
            self._path(job, "failed").unlink(missing_ok=True)
            atomic_files.write_text(self._path(job, "planned"), job.dumps() + "\n")

    def planned(self) -> list[Job]:
        """Return every cell that was ever planned here, by name."""
        found = [_read(path) for path in sorted(self.folder.glob("*.planned.json"))]
        jobs_ = [Job.loads(json.dumps({**content, "out": str(self.out)})) for content in found if content]
        return sorted(jobs_, key=str)

    def claim(self, job: Job, patience: float = PATIENCE) -> HeldLease:
        """Return a hold on a cell; that of a dead process is taken over.

        Where another machine holds it, this waits until that is heard to live, or for `patience` seconds.

        Raises:
            BusyError: another process that lives holds it.
            UserError: the disk is full or may not be written.
        """
        watcher = LeaseWatcher(patience)
        while True:
            with self._lock():
                found = self.claimed(job)
                if found is None or not watcher.lives(found):
                    return self._take(job)
            if watcher.sure(found):
                raise BusyError(found)
            time.sleep(min(BEAT / 4, patience / 4))

    def claimed(self, job: Job) -> Lease | None:
        """Return the claim on a cell, or None where there is none."""
        content = _read(self._path(job, "claim"))
        try:
            return Lease(**content) if content else None
        except TypeError:  # not ours
            return None

    def release(self, job: Job, dead: Lease) -> None:
        """Remove a claim that was found dead, unless it has moved since."""
        with self._lock():
            if self.claimed(job) == dead:
                self._path(job, "claim").unlink(missing_ok=True)

    def finish(self, job: Job, receipt: Receipt) -> None:
        """Keep a receipt: the cell is done."""
        atomic_files.write_text(job.receipt(), json.dumps(asdict(receipt)) + "\n")
        self._path(job, "failed").unlink(missing_ok=True)

    def receipt(self, job: Job) -> Receipt | None:
        """Return the receipt of a cell, or None where it has none of this form."""
        content = _read(job.receipt())
        try:
            return Receipt(**content) if content else None
        except TypeError:
            return None

    def fail(self, job: Job, sentence: str, mendable: bool, log: str = "") -> None:
        """Keep why a cell failed; `log` is cut to its last lines."""
        tail = "\n".join(log.strip().splitlines()[-TAIL:])
        failure = Failure(sentence, mendable, socket.gethostname(), tail)
        atomic_files.write_text(self._path(job, "failed"), json.dumps(asdict(failure)) + "\n")

    def failure(self, job: Job) -> Failure | None:
        """Return why a cell failed last, or None where it didn't."""
        content = _read(self._path(job, "failed"))
        try:
            return Failure(**content) if content else None
        except TypeError:
            return None

    def _take(self, job: Job) -> HeldLease:
        """Put this process' claim where a dead one stands, or none; the ledger's lock is held."""
        path, pid = self._path(job, "claim"), os.getpid()
        path.unlink(missing_ok=True)
        claim = Lease(secrets.token_hex(8), socket.gethostname(), processes.machine_id(), pid, processes.start_time(pid))
        # Where locks don't work across machines, this still lets one of them through.
        if not atomic_files.create_text(path, _dump(claim)):
            found = self.claimed(job)
            raise BusyError(found or claim)
        return HeldLease(path, claim)

    def _lock(self) -> FileLock:
        with atomic_files.explain_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "ledger.lock")

    def _path(self, job: Job, kind: str) -> Path:
        receipt = job.receipt()
        return self.folder / f"{receipt.stem}.{kind}.json"


class HeldLease:
    """This process' claim on a cell: it counts on while the context lasts, and is gone afterwards."""

    def __init__(self, path: Path, claim: Lease) -> None:
        self.path, self.claim = path, claim
        self._progress: dict[str, Any] = {}
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def note(self, stage: str, done: int, total: int, beside: str) -> None:
        """Remember how far the cell is; the next beat tells."""
        self._progress = {"stage": stage, "done": done, "total": total, "beside": beside}

    def __enter__(self) -> HeldLease:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        if not self._lost():
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(BEAT) and not self._lost():
            seconds = round(time.monotonic() - self._began, 1)
            self.claim = replace(self.claim, beat=self.claim.beat + 1, seconds=seconds, **self._progress)
            with suppress(UserError, OSError):  # a full disk stops what is run, not the news of it
                atomic_files.write_text(self.path, _dump(self.claim))

    def _lost(self) -> bool:
        """Whether another process has taken the cell over, since this one was not heard of for too long."""
        return bool(_read(self.path).get("token", self.claim.token) != self.claim.token)


def _dump(claim: Lease) -> str:
    return json.dumps(asdict(claim)) + "\n"


def _read(path: Path) -> dict[str, Any]:
    """Return what a file of the ledger holds; nothing where it is missing or damaged: then it says nothing."""
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
