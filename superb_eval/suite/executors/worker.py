"""A process that executes runs one after the other: jobs arrive as lines of JSON, events leave as lines of JSON.

It is started by `superb_eval.suite.executors.local`. Imports are paid for once, and a crash loses one run only.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from superb_eval.errors import OwnCodeError, UserError
from superb_eval.runtime import allocator, out_of_memory, system_errors
from superb_eval.runtime.progress import Update
from superb_eval.runtime.screen import show
from superb_eval.suite.jobs import Job
from superb_eval.suite.leases import BusyError

REPORT_SECONDS = 0.2
"""Seconds between two reports of progress."""


class EventWriter:
    """A `superb_eval.runtime.progress.Progress` that writes lines of JSON."""

    def __init__(self, out: IO[str]) -> None:
        self.out = out

    def send(self, **content: Any) -> None:
        """Write one message."""
        self.out.write(json.dumps(content) + "\n")
        self.out.flush()

    def log(self, text: str) -> None:
        """Write one line to the worker's log."""
        show(text, error=True, flush=True)

    @contextmanager
    def step(self, name: str, total: int, done: int = 0) -> Iterator[Update]:
        """Send a step's progress as it begins, every `REPORT_SECONDS`, and at its end."""
        last = 0.0

        def update(done: int, postfix: str = "", total: int | None = total) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= REPORT_SECONDS or done == total:
                last = now
                self.send(step=name, done=done, total=total or 0, postfix=postfix)

        update(done)
        yield update


def serve(lines: IO[str], writer: EventWriter) -> None:
    """Execute jobs until the input ends."""
    for text in _until_orphaned(lines):
        job = Job.loads(text)
        show(f"--- {job}", error=True, flush=True)
        try:
            writer.send(**_execute(job, writer))
        except BusyError as error:
            writer.send(busy=str(error))
        except Exception as error:
            writer.send(**_failure(error))
        finally:
            out_of_memory.empty_cache()
            allocator.trim()


def _failure(error: Exception) -> dict[str, Any]:
    """Return the message about an error, which is being handled."""
    if out_of_memory.calls_for_waiting(error):
        return {"out_of_memory": out_of_memory.first_line(error)}
    from superb_eval.runs import run_log

    log = run_log.path_of(error)
    sentence = str(error) if isinstance(error, UserError) else system_errors.sentence(error)
    if sentence is not None:
        return {"failed": sentence, "fixable": True, "log": str(log or "") if isinstance(error, OwnCodeError) else ""}
    if log is None:  # it failed before it had a folder
        traceback.print_exc()
    return {"failed": f"{type(error).__name__}: {error}", "fixable": False, "log": str(log or "")}


def _execute(job: Job, writer: EventWriter) -> dict[str, Any]:
    from superb_eval.suite.execute import execute

    receipt = execute(job, writer)
    return {"run": receipt.run, "figures": receipt.figures, "seconds": receipt.seconds}


def _until_orphaned(lines: IO[str]) -> Iterator[str]:
    """Yield lines; where they end during a run, the suite is gone, and this process exits."""
    waiting: queue.Queue[str | None] = queue.Queue()
    idle = threading.Event()

    def read() -> None:
        for line in lines:
            waiting.put(line)
        waiting.put(None)
        if not idle.is_set():
            os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while True:
        idle.set()
        line = waiting.get()
        idle.clear()
        if line is None:
            return
        yield line


def main() -> None:
    """Serve on standard input and output; prints of libraries go to standard error, so that messages stay intact."""
    out = os.fdopen(os.dup(1), "w", encoding="utf8")
    os.dup2(2, 1)
    allocator.reuse_freed()
    try:
        serve(sys.stdin, EventWriter(out))
    except KeyboardInterrupt:
        os._exit(130)


if __name__ == "__main__":
    main()
