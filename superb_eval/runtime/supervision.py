"""Runs a command in a process of its own where something may end it without a word: a user's code, or limited memory.

The first process only waits: it forked before any library was imported, holds no lock and no claim, and reports how and
at which line of the user's code the second one ended. Libraries abort where their memory is limited (`ulimit -v`),
torch while it is imported. Where Python can't fork (Windows), there is one process.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

GRACE_SECONDS = 10.0
"""That a finished command waits for the threads that the user's code left."""

_OWN_CODE = re.compile(r"([^=,]+\.py):[^/,]+")
_FRAME = re.compile(r'  File "(.+)", line (\d+) in (\S+)')
_FINISHED = b"finished\n"
_DIE_WITH_PARENT = 1
"""prctl's PR_SET_PDEATHSIG, of Linux."""

_reports: list[BinaryIO] = []
"""Where this process, if it is supervised, writes how it ends."""


@dataclass(frozen=True)
class Ending:
    """How the supervised process ended."""

    code: int
    message: str = ""
    """About what went wrong; empty where the process itself reported it."""


def run_apart(arguments: Sequence[str], failure: int) -> Ending | None:
    """Fork where the arguments name a user's code, or memory is limited; return None in the process that is to run it.

    Args:
        arguments: of the command line.
        failure: exit code of a command whose process the user's code ended.
    """
    named = next((Path(match[1]).resolve() for word in arguments if (match := _OWN_CODE.fullmatch(word))), None)
    # A process with threads, or with torch's, can't be forked safely: it is Python's own caller, such as a test.
    if not hasattr(os, "fork") or threading.active_count() > 1 or "torch" in sys.modules:
        return None
    limit = _memory_limit()
    if named is None and limit is None:
        return None
    report = tempfile.TemporaryFile()  # noqa: SIM115 - closed below, where the other process has its own
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _report_to(report)
        return None
    with report:
        status = _wait(pid, report)
        content = os.pread(report.fileno(), 100_000, 0)
    code = os.waitstatus_to_exitcode(status)
    if content.endswith(_FINISHED):
        return Ending(max(code, 0))
    if named is None or (limit is not None and code == -signal.SIGABRT):
        return Ending(failure, f"superb-eval: {_describe_limited(limit or 0, code)}")
    return Ending(failure, f"superb-eval: {_describe(named, code, content.decode(errors='replace'))}")


def _memory_limit() -> int | None:
    """Return the bytes of address space that this process may take; None: it is not limited."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def finish() -> None:
    """Report that the command ended by itself; nothing where this process isn't supervised."""
    for report in _reports:
        faulthandler.cancel_dump_traceback_later()
        os.write(report.fileno(), _FINISHED)


@contextmanager
def limited_to(seconds: float) -> Iterator[None]:
    """End a supervised process that takes longer, with a report of the line that it was at."""
    for report in _reports:
        faulthandler.dump_traceback_later(seconds, exit=True, file=report)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _report_to(report: BinaryIO) -> None:
    """Let this process write where it is when a signal, or `os._exit`, ends it; it ends with the one that waits."""
    _reports.append(report)
    faulthandler.enable(report, all_threads=False)
    own, leave = os.getpid(), os._exit

    def exit_with_report(status: int) -> None:
        if os.getpid() == own:  # not in a process that was forked from this one
            faulthandler.dump_traceback(report, all_threads=False)
        leave(status)

    os._exit = exit_with_report  # type: ignore[assignment]
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _wait(pid: int, report: BinaryIO) -> int:
    """Return the status with which a process ended; one that has finished is ended where its threads go on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    finished_at = None
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if finished_at is None and os.pread(report.fileno(), 100_000, 0).endswith(_FINISHED):
            finished_at = time.monotonic()
        if finished_at is not None and time.monotonic() - finished_at > GRACE_SECONDS:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _describe_limited(limit: int, status: int) -> str:
    """Return the sentence about a process of limited memory that ended before its command did."""
    how = signal.strsignal(-status) if status < 0 else f"exit code {status}"
    return (
        f"the process ended ({how}), perhaps because its memory ran out: it may take {limit / 1e9:.1f} GB of address "
        "space (`ulimit -v`), of which a torch with CUDA takes several to start. Allow more, and run it again."
    )


def _describe(code: Path, status: int, report: str) -> str:
    """Return the sentence about a process that ended before its command did."""
    place = _place(code, report)
    if report.startswith("Timeout"):
        limit = report.split("(", 1)[1].split(")", 1)[0]
        return f"{code}: takes longer than {limit} hours{place}. Make it faster, or raise --timeout."
    if status == -signal.SIGKILL:
        return f"{code}: its process was killed, perhaps because the machine's memory ran out{place}. Allow it more."
    if status < 0:
        name = signal.strsignal(-status) or f"signal {-status}"
        return f"{code}: its code crashed the process ({name}){place}. Fix it there."
    return f"{code}: its code ended the process (exit code {status}){place}. Remove the exit there."


def _place(code: Path, report: str) -> str:
    """Return the innermost line of the user's own code in a report of faulthandler."""
    frames = [(Path(path).resolve(), line, name) for path, line, name in _FRAME.findall(report)]
    folder, packages = code.parent, {"site-packages", "dist-packages", "superb_eval", "upstreams"}
    own = [frame for frame in frames if frame[0].is_relative_to(folder) and not packages & set(frame[0].parts)]
    return "".join(f" at {path}, line {line}, in {name}" for path, line, name in own[:1])
