"""A process that runs cells, one after the other: jobs come in as lines of JSON, and what happens goes out likewise.

It is started by `superb_eval.suite.executors.local`. Imports are paid for once, and a crash takes one cell along.
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

from superb_eval.errors import UserError
from superb_eval.runtime.progress import Update
from superb_eval.suite.jobs import Job
from superb_eval.suite.leases import BusyError

EVERY = 0.2
"""Seconds between two reports of progress."""


class Wire:
    """A `superb_eval.runtime.progress.Progress` that writes lines of JSON."""

    def __init__(self, out: IO[str]) -> None:
        self.out = out

    def send(self, **content: Any) -> None:
        """Write one message."""
        self.out.write(json.dumps(content) + "\n")
        self.out.flush()

    def log(self, text: str) -> None:
        """Log one line; the suite's board has no room for it."""
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def step(self, name: str, total: int) -> Iterator[Update]:
        """Report a stage every so often, and its end."""
        last = 0.0

        def update(done: int, postfix: str = "", total: int | None = total) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= EVERY or done == total:
                last = now
                self.send(stage=name, done=done, total=total or 0, postfix=postfix)

        update(0)
        yield update


def serve(lines: IO[str], wire: Wire) -> None:
    """Run jobs until there are no more."""
    for text in _until_orphaned(lines):
        job = Job.loads(text)
        print(f"--- {job}", file=sys.stderr, flush=True)
        try:
            wire.send(**_run(job, wire))
        except BusyError as error:
            wire.send(busy=str(error))
        except UserError as error:
            wire.send(failed=str(error), mendable=True)
        except Exception as error:
            traceback.print_exc()
            wire.send(failed=f"{type(error).__name__}: {error}", mendable=False)


def _run(job: Job, wire: Wire) -> dict[str, Any]:
    from superb_eval.suite.execute import execute

    receipt = execute(job, wire)
    return {"run": receipt.run, "figures": receipt.figures, "seconds": receipt.seconds}


def _until_orphaned(lines: IO[str]) -> Iterator[str]:
    """Yield lines; where they end while a job runs, the suite is gone, and so is this process."""
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
    """Serve on standard input and output; what libraries print goes to standard error, so that lines stay whole."""
    out = os.fdopen(os.dup(1), "w", encoding="utf8")
    os.dup2(2, 1)
    try:
        serve(sys.stdin, Wire(out))
    except KeyboardInterrupt:
        os._exit(130)


if __name__ == "__main__":
    main()
