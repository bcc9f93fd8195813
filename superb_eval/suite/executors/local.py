"""Runs cells on this machine: some worker processes side by side, with as many threads as leave no core fought for."""

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

from superb_eval.runtime import atomic_files, processes
from superb_eval.runtime.threads import available_cores
from superb_eval.suite.events import Busy, Event, Failed, Finished, JobProgress, Started, Tell
from superb_eval.suite.jobs import PLACE, Job


class Local:
    """A `superb_eval.suite.events.Scheduler` of `workers` processes."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._alive: set[_Worker] = set()
        self._broken: list[Exception] = []

    def run(self, jobs: Sequence[Job], tell: Tell) -> None:
        """See `Scheduler.run`; interrupted, it takes its workers along."""
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        lock = threading.Lock()

        def one_by_one(event: Event) -> None:
            with lock:
                tell(event)

        count = min(self.workers, len(jobs))
        threads = [
            threading.Thread(target=self._watch, args=(k, waiting, one_by_one), daemon=True) for k in range(count)
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
        if self._broken:
            raise self._broken[0]

    def _watch(self, number: int, waiting: queue.SimpleQueue[Job], tell: Tell) -> None:
        """Work, and keep what goes wrong here, or in `tell`, for the thread that waits."""
        try:
            self._work(number, waiting, tell)
        except Exception as error:
            self._broken.append(error)

    def _work(self, number: int, waiting: queue.SimpleQueue[Job], tell: Tell) -> None:
        worker: _Worker | None = None
        while True:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                break
            if worker is None:
                worker = _Worker(_log(job.out / PLACE, number), max(1, available_cores() // self.workers))
                self._alive.add(worker)
            if not worker.do(job, tell):
                self._alive.discard(worker)
                worker = None
        if worker is not None:
            worker.stop()
            self._alive.discard(worker)


def _log(folder: Path, number: int) -> Path:
    """Return a new worker's log; those of suites of this machine that are gone make room."""
    mine = f"worker-{processes.machine_id()}-"
    for path in folder.glob(f"{mine}*.log"):
        pid = path.stem.removeprefix(mine).partition("-")[0]
        if not (pid.isdigit() and processes.is_alive(int(pid))):
            path.unlink(missing_ok=True)
    return folder / f"{mine}{os.getpid()}-{number}.log"


class _Worker:
    """A process that runs cells; its log holds what it prints."""

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

    def do(self, job: Job, tell: Tell) -> bool:
        """Run a job to its end; return whether the process is alive and can take another."""
        assert self.process.stdin is not None  # noqa: S101 - for the type checker
        assert self.process.stdout is not None  # noqa: S101
        tell(Started(job))
        with suppress(BrokenPipeError):  # a process that is dead tells nothing below either
            self.process.stdin.write(job.dumps() + "\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            event = self._event(job, json.loads(line))
            tell(event)
            if not isinstance(event, JobProgress):
                return True
        tell(Failed(job, self._death(), mendable=False, log=str(self.log), died=True))
        return False

    def stop(self) -> None:
        """End the process, in the midst of a cell too: what it has saved is taken up again."""
        self.process.terminate()
        self.process.wait()

    def _event(self, job: Job, message: dict[str, object]) -> Event:
        if "stage" in message:
            return JobProgress(
                job,
                str(message["stage"]),
                int(str(message["done"])),
                int(str(message["total"])),
                str(message["postfix"]),
            )
        if "busy" in message:
            return Busy(job, str(message["busy"]))
        if "failed" in message:
            log = "" if message["mendable"] else str(self.log)
            return Failed(job, str(message["failed"]), bool(message["mendable"]), log)
        return Finished(job, str(message["run"]), str(message["figures"]), float(str(message["seconds"])))

    def _death(self) -> str:
        code = self.process.wait()
        if code == -9:
            return "its process was killed (signal 9): most likely memory ran out. Give fewer --jobs."
        return f"its process ended with code {code}"
