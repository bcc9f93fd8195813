"""Executes runs on this machine: parallel worker processes, each on its share of the cores."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from superb_eval.runtime import atomic_files, out_of_memory, processes
from superb_eval.runtime.threads import available_cores
from superb_eval.suite import state_files
from superb_eval.suite.events import Busy, Event, EventHandler, Failed, Finished, JobProgress, OutOfMemory, Started
from superb_eval.suite.jobs import SUITE_FOLDER, Job
from superb_eval.suite.schedule import RunEstimate, RunQueue


class Local:
    """A `superb_eval.suite.events.Scheduler` of `workers` processes, whose runs fit into `memory` bytes together.

    A run that isn't in `estimates` is assumed to need no memory. One that runs out of it beside others is resumed once
    some of them have finished, at last alone (`RunQueue`).
    """

    def __init__(
        self, workers: int, estimates: Mapping[Job, RunEstimate] | None = None, memory: float = math.inf
    ) -> None:
        self.workers, self.estimates, self.memory = workers, estimates or {}, memory
        self._alive: set[_Worker] = set()
        self._errors: list[Exception] = []
        self._changed = threading.Condition()
        """Held while the queue is read or changed; notified when another run may start."""

    def run(self, jobs: Sequence[Job], on_event: EventHandler) -> None:
        """See `Scheduler.run`; when interrupted, it ends its workers.

        Raises:
            UserError: the disk is full or may not be written.
        """
        queue = RunQueue((self.estimates.get(job, RunEstimate(job)) for job in jobs), self.memory)
        lock = threading.Lock()

        def one_at_a_time(event: Event) -> None:
            with lock:
                on_event(event)

        count = min(self.workers, len(jobs))
        threads = [
            threading.Thread(target=self._work_safely, args=(k, count > 1, queue, one_at_a_time), daemon=True)
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

    def _work_safely(self, number: int, beside_others: bool, queue: RunQueue, on_event: EventHandler) -> None:
        """Work, and store an error of this thread, or of `on_event`, for the main thread to raise."""
        try:
            self._work(number, beside_others, queue, on_event)
        except Exception as error:
            self._errors.append(error)

    def _work(self, number: int, beside_others: bool, queue: RunQueue, on_event: EventHandler) -> None:
        worker: _Worker | None = None
        while (run := self._next_run(queue, worker)) is not None:
            memory_ran_out = False
            try:
                shared = beside_others and not queue.is_alone(run.job)
                if worker is None or not worker.is_alive() or worker.shared != shared:
                    self._stop(worker)
                    worker = self._start_worker(run.job.out / SUITE_FOLDER, number, shared)
                memory_ran_out = self._execute(worker, run.job, queue, on_event)
            finally:
                with self._changed:
                    (queue.postpone if memory_ran_out else queue.finish)(run.job)
                    self._changed.notify_all()
        self._stop(worker)

    def _next_run(self, queue: RunQueue, worker: _Worker | None) -> RunEstimate | None:
        """Return the next run, once one may start; None where none is left."""
        with self._changed:
            while (run := queue.start()) is None and queue.waiting:
                self._stop(worker)  # an idle process would hold memory that others wait for
                self._changed.wait()
            return run

    def _execute(self, worker: _Worker, job: Job, queue: RunQueue, on_event: EventHandler) -> bool:
        """Execute a run to its end; return whether it ran out of memory beside others."""
        for event in worker.execute(job):
            if isinstance(event, JobProgress) and event.features_stored:
                with self._changed:
                    queue.features_stored(job)
                    self._changed.notify_all()
            on_event(event)
            if isinstance(event, OutOfMemory):
                self._stop(worker)
                return True
        return False

    def _start_worker(self, folder: Path, number: int, shared: bool) -> _Worker:
        worker = _Worker(_log_path(folder, number), max(1, available_cores() // self.workers), shared)
        self._alive.add(worker)
        return worker

    def _stop(self, worker: _Worker | None) -> None:
        if worker is not None:
            worker.stop()
            self._alive.discard(worker)


def _log_path(folder: Path, number: int) -> Path:
    """Return the path of a new worker's log, and remove the logs of this machine's dead suites."""
    prefix = f"worker-{processes.machine_id()}-"
    for path in folder.glob(f"{prefix}*.log"):
        pid = path.stem.removeprefix(prefix).partition("-")[0]
        if not (pid.isdecimal() and processes.is_alive(int(pid))):
            state_files.remove(path)
    return folder / f"{prefix}{os.getpid()}-{number}.log"


class _Worker:
    """A process that executes runs; its log holds what it prints. `shared`: others use the device beside it."""

    def __init__(self, log: Path, threads: int, shared: bool) -> None:
        self.log, self.shared = log, shared
        with atomic_files.explain_disk_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.unlink(missing_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment |= {out_of_memory.SHARED: "1"} if shared else {}
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

    def is_alive(self) -> bool:
        """Return whether the process can execute another run."""
        return self.process.poll() is None

    def execute(self, job: Job) -> Iterator[Event]:
        """Execute a job to its end; yield its events."""
        yield Started(job)
        with suppress(BrokenPipeError):  # a dead process sends no message either, which is handled below
            self.jobs.write(job.dumps() + "\n")
            self.jobs.flush()
        for line in self.messages:
            event = self._event(job, json.loads(line))
            yield event
            if not isinstance(event, JobProgress):
                return
        yield self._death(job)

    def stop(self) -> None:
        """End the process, during a run too: what the run has saved is resumed later."""
        self.process.terminate()
        self.process.wait()

    def _event(self, job: Job, message: dict[str, Any]) -> Event:
        if "step" in message:
            return JobProgress(job, message["step"], message["done"], message["total"], message["postfix"])
        if "busy" in message:
            return Busy(job, message["busy"])
        if "out_of_memory" in message:
            return OutOfMemory(job, message["out_of_memory"])
        if "failed" in message:
            log = message["log"] or ("" if message["fixable"] else str(self.log))
            return Failed(job, message["failed"], message["fixable"], log)
        return Finished(job, message["run"], message["figures"], message["seconds"])

    def _death(self, job: Job) -> Event:
        """Return the event of a process that ended; the system kills one where the machine's memory runs out."""
        code = self.process.wait()
        if code == -signal.SIGKILL and self.shared:
            return OutOfMemory(job, "its process was killed (signal 9): most likely memory ran out")
        text = f"its process ended with code {code}"
        if code == -signal.SIGKILL:
            text = "its process was killed (signal 9): most likely memory ran out. Give fewer --jobs."
        return Failed(job, text, fixable=False, log=str(self.log), died=True)
