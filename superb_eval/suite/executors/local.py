"""Executes runs on this machine: parallel worker processes, each on its share of the cores."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from superb_eval.runtime import atomic_files, processes
from superb_eval.runtime.threads import available_cores
from superb_eval.suite.events import Busy, Event, EventHandler, Failed, Finished, JobProgress, Started
from superb_eval.suite.jobs import SUITE_FOLDER, Job


class Local:
    """A `superb_eval.suite.events.Scheduler` of `workers` processes."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._alive: set[_Worker] = set()
        self._errors: list[Exception] = []

    def run(self, jobs: Sequence[Job], on_event: EventHandler) -> None:
        """See `Scheduler.run`; when interrupted, it ends its workers.

        Raises:
            UserError: the disk is full or may not be written.
        """
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        lock = threading.Lock()

        def one_at_a_time(event: Event) -> None:
            with lock:
                on_event(event)

        count = min(self.workers, len(jobs))
        threads = [
            threading.Thread(target=self._work_safely, args=(k, waiting, one_at_a_time), daemon=True)
            for k in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(timeout=0.2)
        finally:
            for worker in list(self._alive):
                worker.stop()
        if self._errors:
            raise self._errors[0]

    def _work_safely(self, number: int, waiting: queue.SimpleQueue[Job], on_event: EventHandler) -> None:
        """Work, and store an error of this thread, or of `on_event`, for the main thread to raise."""
        try:
            self._work(number, waiting, on_event)
        except Exception as error:
            self._errors.append(error)

    def _work(self, number: int, waiting: queue.SimpleQueue[Job], on_event: EventHandler) -> None:
        worker: _Worker | None = None
        while True:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                break
            if worker is None:
                log = _log_path(job.out / SUITE_FOLDER, number)
                worker = _Worker(log, max(1, available_cores() // self.workers))
                self._alive.add(worker)
            if not worker.execute(job, on_event):
                self._alive.discard(worker)
                worker = None
        if worker is not None:
            worker.stop()
            self._alive.discard(worker)


def _log_path(folder: Path, number: int) -> Path:
    """Return the path of a new worker's log, and remove the logs of this machine's dead suites."""
    prefix = f"worker-{processes.machine_id()}-"
    for path in folder.glob(f"{prefix}*.log"):
        pid = path.stem.removeprefix(prefix).partition("-")[0]
        if not (pid.isdigit() and processes.is_alive(int(pid))):
            path.unlink(missing_ok=True)
    return folder / f"{prefix}{os.getpid()}-{number}.log"


class _Worker:
    """A process that executes runs; its log holds what it prints."""

    def __init__(self, log: Path, threads: int) -> None:
        self.log = log
        with atomic_files.explain_disk_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.unlink(missing_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "superb_eval.suite.executors.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment,
                text=True,
                encoding="utf8",
            )
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("a worker was started without pipes")
        self.jobs, self.messages = self.process.stdin, self.process.stdout

    def execute(self, job: Job, on_event: EventHandler) -> bool:
        """Execute a job to its end; return whether the process is alive for another one."""
        on_event(Started(job))
        with suppress(BrokenPipeError):  # a dead process sends no message either, which is handled below
            self.jobs.write(job.dumps() + "\n")
            self.jobs.flush()
        for line in self.messages:
            event = self._event(job, json.loads(line))
            on_event(event)
            if not isinstance(event, JobProgress):
                return True
        on_event(Failed(job, self._death(), fixable=False, log=str(self.log), died=True))
        return False

    def stop(self) -> None:
        """End the process, during a run too: what the run has saved is resumed later."""
        self.process.terminate()
        self.process.wait()

    def _event(self, job: Job, message: dict[str, Any]) -> Event:
        if "step" in message:
            return JobProgress(job, message["step"], message["done"], message["total"], message["postfix"])
        if "busy" in message:
            return Busy(job, message["busy"])
        if "failed" in message:
            log = "" if message["fixable"] else str(self.log)
            return Failed(job, message["failed"], message["fixable"], log)
        return Finished(job, message["run"], message["figures"], message["seconds"])

    def _death(self) -> str:
        code = self.process.wait()
        if code == -9:
            return "its process was killed (signal 9): most likely memory ran out. Give fewer --jobs."
        return f"its process ended with code {code}"
