"""A suite's files, edited: `python -m tests.campaigns job_files [EVERY]` makes about 1 000 edits in five kinds of them.

Planned runs, claims, failures, receipts and the marks of waiting runs get values of other types and sizes, lose fields,
become pipes, folders and links. `board` has to show what can be read, and a suite has to execute the run, or refuse it
with a sentence, within the lease's time-out; no file but the suite's own may change.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from superb_eval.errors import UserError
from superb_eval.runtime import processes
from superb_eval.suite import jobs, state_files
from superb_eval.suite.executors import array_task
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import Job, SuiteConfig
from superb_eval.suite.leases import BusyError, Lease
from superb_eval.suite.state_files import Failure, Receipt
from tests.campaigns.commands import type_command

SECONDS = 20
"""For each edit; the time-out of leases is `TIMEOUT` here."""

TIMEOUT = 0.02

KINDS = ("planned", "claim", "failed", "waits", "receipt")

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**400, 1.5, float("nan"), float("inf"), -1e308),
    *(
        "",
        "7",
        "x" * 100_000,
        "\x1b[31mred\x07",
        "\ud800",
        "a\0b",
        "../../elsewhere",
        "/etc/passwd",
        "line\nfeed\u202e",
    ),
    *([], [None], {}, {"token": 1}),
)

TEXTS = (
    *(b"", b"{", b"[]", b"7", b"null", b'"x"', b"\xff\xfe{}", b"\0" * 300, b"\n\n", b'{"token": "t"}', b"NaN"),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b'{"version": 99, "claim": {"owner": "x"}}'),
)

Edit = Callable[[Path], object]


def _base(out: Path) -> dict[str, Any]:
    """Return what is edited: the state of each kind, of one run."""
    job = Job("fbank", "ks", out.parent / "corpus", "nano", (), 0, out, "cpu", None, 2.5)
    lease = Lease("t", "elsewhere", "another-machine", 7, "123", 3, 4.0, "training", 5, 6, "dev 50")
    failure, receipt = Failure("no such corpus", True, "elsewhere", "a log"), Receipt("s", "fbank/ks/r", "ACC 1", 2.0)
    return {"planned": job, "claim": lease, "failed": failure, "waits": None, "receipt": receipt}


def _edits(kind: str, content: dict[str, Any], outside: Path) -> Iterator[tuple[str, Edit]]:
    """Yield the edits of a kind of file, with a name of each."""
    for key in content:
        for value in VALUES:
            text = json.dumps({**content, key: value})
            yield f"{key}={str(value)[:20]!r}", lambda path, text=text: path.write_text(text)
        without = json.dumps({name: value for name, value in content.items() if name != key})
        yield f"without {key}", lambda path, text=without: path.write_text(text)
    for raw in TEXTS:
        yield repr(raw[:20]), lambda path, raw=raw: path.write_bytes(raw)
    yield "more keys", lambda path: path.write_text(json.dumps({**content, "later": [1, {"a": None}]}))
    yield "half", lambda path: path.write_text(json.dumps(content)[: len(json.dumps(content)) // 2])
    yield "huge", lambda path: (path.touch(), os.truncate(path, 10**11))
    yield "in the future", lambda path: (path.write_text(json.dumps(content)), os.utime(path, (4e9, 4e9)))
    yield "of 1970", lambda path: (path.write_text(json.dumps(content)), os.utime(path, (0, 0)))
    yield "pipe", os.mkfifo
    yield "folder", lambda path: (path / "inner").mkdir(parents=True)
    yield "link to a device", lambda path: path.symlink_to("/dev/zero")
    yield "link in a circle", lambda path: path.symlink_to(path.name)
    yield "broken link", lambda path: path.symlink_to("nowhere")
    yield "link to a user's file", lambda path: path.symlink_to(outside / "mine.txt")
    if kind == "claim":
        ours = {**content, "machine": processes.machine_id()}
        for pid in (-1, 0, 1, 2**22, 2**31, os.getpid(), os.getppid()):
            for start in ("", "0", "later"):
                text = json.dumps({**ours, "pid": pid, "started": start})
                yield f"ours, pid {pid} {start}", lambda path, text=text: path.write_text(text)


def cases(folder: Path) -> Iterator[tuple[str, str, Edit]]:
    """Yield every case: the kind of file, the name of the edit, and what makes it."""
    for kind, state in _base(folder / "out").items():
        content = json.loads(state_files.dump(state)) if state is not None else {}
        yield from ((kind, name, edit) for name, edit in _edits(kind, content, folder / "outside"))


def attempt(folder: Path, kind: str, edit: Edit) -> str:
    """Write a suite's files with one of them edited, show them and execute the run; return the outcome."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    (out / jobs.SUITE_FOLDER).mkdir(parents=True)
    states, base = JobStates(out), _base(out)
    job: Job = base["planned"]
    paths = {name: states._path(job, name) for name in KINDS[:4]} | {"receipt": job.receipt_path()}
    state_files.write(paths["planned"], job)
    paths[kind].unlink(missing_ok=True)
    edit(paths[kind])
    shown = type_command("board", out, "--once")
    if shown.code != 0 or "\x1b" in shown.out:
        return f"board: {shown.code}: {shown.err.strip().splitlines()[-1:]}"
    if kind == "planned" and state_files.load(Job, paths["planned"]) is None and _is_executed(paths["planned"]):
        return "an invalid run was executed"
    try:
        jobs.expand(SuiteConfig(("fbank",), ("ks",), job.data, "nano", out=out))
        jobs.finished(job)
        states.plan([job])
        with states.acquire(job, TIMEOUT):
            states.wait_for_memory(job)
            states.fail(job, "message", fixable=True)
            states.finish(job, base["receipt"])
    except UserError as error:
        return "refused" if str(paths[kind]) in str(error) else f"names no file: {error}"
    except BusyError as error:
        return f"waits for {error}"
    if not (states.receipt(job) and states.planned() == [job] and states.lease(job) is None):
        return "the run was not executed"
    return "executed"


def _is_executed(path: Path) -> bool:
    """Return whether a task of SLURM executes the run in a file, or ends in anything but a sentence."""
    with redirect_stderr(io.StringIO()) as error:
        code = array_task.main(["runs", str(path), "0"])
    return code != 2 or str(path) not in error.getvalue()


def run(folder: Path, every: int = 1, offset: int = 0) -> Counter[str]:
    """Try each `every`-th edit; return how many had which outcome."""
    outside = folder / "outside"
    outside.mkdir(parents=True)
    (outside / "mine.txt").write_text("mine")
    counts: Counter[str] = Counter()
    signal.signal(signal.SIGALRM, _late)
    for number, (kind, name, edit) in enumerate(cases(folder)):
        if number % every != offset:
            continue
        signal.alarm(SECONDS)
        try:
            outcome = attempt(folder, kind, edit)
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"[:200]
        finally:
            signal.alarm(0)
        if [path.read_text() for path in outside.iterdir()] != ["mine"]:
            outcome = "a file of the user's changed"
        counts[outcome if outcome in ("executed", "refused") else f"{kind}, {name}: {outcome}"] += 1
    return counts


def _late(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def faults(counts: Counter[str]) -> list[str]:
    """Return the outcomes that must not occur."""
    return [outcome for outcome in counts if outcome not in ("executed", "refused")]


def main(arguments: Sequence[str]) -> int:
    """Try every edit, or each one of so many; return 1 where one had an outcome that must not occur."""
    with tempfile.TemporaryDirectory() as folder:
        counts = run(Path(folder), int((*arguments, "1")[0]))
    print(f"{sum(counts.values())} edits: {counts['executed']} executed, {counts['refused']} refused with a sentence")
    print("\n".join(faults(counts)) or "nothing else")
    return int(bool(faults(counts)))
