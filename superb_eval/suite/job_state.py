"""The states of a suite's runs: what is planned, what runs and on which process, what is finished, what failed and why.

Each state is a small JSON file in `OUT/.suite`, named by the run's digest and written atomically, so that suites,
workers and status views on any number of machines that share the folder agree without talking to each other. A lease
names the process that executes a run; that process increments a heartbeat in it every few seconds. Whoever watches
measures with their own clock how long ago the heartbeat advanced: no two machines' clocks are compared.

The record `result.json` is the truth about a finished run. Its receipt repeats the figures only so that a status view
needs to open no record, and holds the signature by which a later suite skips the run.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files, locks, processes
from superb_eval.suite import jobs, leases, state_files
from superb_eval.suite.jobs import SUITE_FOLDER, Job
from superb_eval.suite.leases import TIMEOUT, BusyError, Lease, LeaseWatcher
from superb_eval.suite.state_files import Failure, Receipt

HEARTBEAT = 2.0
"""Seconds between two heartbeats of a lease."""

TAIL_LINES = 20
"""Last lines of a log that are stored with a failure."""


class JobStates:
    """The states of the runs of one results folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / SUITE_FOLDER

    def plan(self, planned: list[Job]) -> None:
        """Store runs as planned, and remove their earlier failures and outdated receipts.

        Raises:
            UserError: the disk is full or may not be written.
        """
        for job in planned:
            if jobs.finished(job) is None:
                state_files.remove(job.receipt_path())
            self.clear_failure(job)
            state_files.remove(self._path(job, "waits"))
            state_files.write(self._path(job, "planned"), job)

    def planned(self) -> list[Job]:
        """Return every run that was ever planned here, by name."""
        loaded = [state_files.load(Job, path) for path in sorted(self.folder.glob("*.planned.json"))]
        return sorted((replace(job, out=self.out) for job in loaded if job), key=str)

    def acquire(self, job: Job, timeout: float = TIMEOUT) -> HeldLease:
        """Return this process's lease on a run; a dead process's lease is replaced.

        Where another machine holds it, or it can't be read, this waits until its heartbeat advances, or for `timeout`
        seconds.

        Raises:
            BusyError: another live process holds it.
            UserError: the disk is full or may not be written.
        """
        watcher = LeaseWatcher(timeout)
        while True:
            with self._lock():
                current = self.lease(job)
                if current is None or not watcher.is_alive(current):
                    return self._replace_lease(job)
            if watcher.is_certain(current):
                raise BusyError(current)
            time.sleep(min(HEARTBEAT / 4, timeout / 4))

    def lease(self, job: Job) -> Lease | None:
        """Return the lease on a run, or None without one."""
        return leases.read(self._path(job, "claim"))

    def release(self, job: Job, expired: Lease) -> None:
        """Remove an expired lease, unless it has changed since."""
        with self._lock():
            if self.lease(job) == expired:
                state_files.remove(self._path(job, "claim"))

    def finish(self, job: Job, receipt: Receipt) -> None:
        """Store the receipt of a finished run.

        Raises:
            UserError: the disk is full or may not be written.
        """
        state_files.write(job.receipt_path(), receipt)
        self.clear_failure(job)

    def receipt(self, job: Job) -> Receipt | None:
        """Return the receipt of a run, or None without a valid one."""
        return state_files.load(Receipt, job.receipt_path())

    def fail(self, job: Job, message: str, fixable: bool, log: str = "", memory_ran_out: bool = False) -> None:
        """Store why a run failed, with the last lines of `log`.

        Raises:
            UserError: the disk is full or may not be written.
        """
        tail = "\n".join(log.strip().splitlines()[-TAIL_LINES:])
        failure = Failure(message, fixable, socket.gethostname(), tail, memory_ran_out)
        state_files.write(self._path(job, "failed"), failure)

    def failure(self, job: Job) -> Failure | None:
        """Return why a run's last attempt failed, or None where it didn't."""
        return state_files.load(Failure, self._path(job, "failed"))

    def clear_failure(self, job: Job) -> None:
        """Remove the failure of a run that is executed again."""
        state_files.remove(self._path(job, "failed"))

    def wait_for_memory(self, job: Job) -> None:
        """Store that a run waits until others have finished.

        Raises:
            UserError: the disk is full or may not be written.
        """
        atomic_files.write_text(self._path(job, "waits"), "{}\n")

    def waits_for_memory(self, job: Job) -> bool:
        """Return whether a run waits until others have finished."""
        return self._path(job, "waits").is_file()

    def _replace_lease(self, job: Job) -> HeldLease:
        """Replace an expired lease, if there is one, by this process's; the folder's lock is held."""
        path, pid = self._path(job, "claim"), os.getpid()
        state_files.remove(path)
        state_files.remove(self._path(job, "waits"))
        started = processes.start_time(pid)
        lease = Lease(secrets.token_hex(8), socket.gethostname(), processes.machine_id(), pid, started)
        # Where file locks don't work across machines, exactly one process still creates the file.
        if not atomic_files.create_text(path, state_files.dump(lease) + "\n"):
            raise BusyError(self.lease(job) or lease)
        return HeldLease(path, lease)

    def _lock(self) -> AbstractContextManager[None]:
        return locks.hold(self.folder / "states.lock")

    def _path(self, job: Job, state: str) -> Path:
        return self.folder / f"{job.receipt_path().stem}.{state}.json"


class HeldLease:
    """This process's lease on a run: sends heartbeats while its context lasts, and is removed afterwards."""

    def __init__(self, path: Path, lease: Lease) -> None:
        self.path, self.lease = path, lease
        self._progress: dict[str, Any] = {}
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send_heartbeats, daemon=True)

    def report(self, step: str, done: int, total: int, postfix: str) -> None:
        """Set the run's progress, which the next heartbeat writes."""
        self._progress = {"step": step, "done": done, "total": total, "postfix": postfix}

    def __enter__(self) -> HeldLease:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        if not self._lost():
            state_files.remove(self.path)

    def _send_heartbeats(self) -> None:
        while not self._over.wait(HEARTBEAT) and not self._lost():
            seconds = round(time.monotonic() - self._began, 1)
            self.lease = replace(self.lease, heartbeat=self.lease.heartbeat + 1, seconds=seconds, **self._progress)
            with suppress(UserError, OSError):  # a full disk stops the run itself, not its heartbeat
                state_files.write(self.path, self.lease)

    def _lost(self) -> bool:
        """Return whether another process has replaced this lease, since its heartbeat was overdue."""
        current = state_files.load(Lease, self.path)
        return current is not None and current.token != self.lease.token
