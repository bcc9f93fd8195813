"""A soak: `python -m tests.campaigns.soak [TIMES]` runs the nano suite again and again in one process tree.

After each round memory, open files and threads of the worker are noted, and files in the temporary folder. What grows
from round to round is a leak: the second half of the rounds must need no more than the first, but for `SLACK`.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
from dataclasses import astuple, dataclass
from pathlib import Path

from superb_eval.runtime.progress import NoProgress
from superb_eval.suite import jobs
from superb_eval.suite.execute import execute
from superb_eval.suite.jobs import Request

SLACK_MB = 30.0
"""Allocators keep some; a leak of a corpus' features or a head at each round would be more after ten rounds."""


@dataclass(frozen=True)
class Needed:
    """What this process needs: resident megabytes, open files, threads, and entries in the temporary folder."""

    megabytes: float
    handles: int
    threads: int
    temporary: int


def needed() -> Needed:
    """Look."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    handles = len(os.listdir("/proc/self/fd"))
    entries = len(os.listdir(tempfile.gettempdir()))
    return Needed(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, handles, threading.active_count(), entries)


def run(
    corpus: Path, folder: Path, tasks: tuple[str, ...], times: int, overrides: tuple[str, ...] = ()
) -> list[Needed]:
    """Run the suite so many times in this process, each in a results folder and a store of its own."""
    found = []
    temporary = folder / "temporary"  # others fill the common one
    temporary.mkdir(parents=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    for number in range(times):
        place = folder / str(number)
        request = Request(("fbank_nonorm",), tasks, corpus, "nano", overrides, out=place / "r", store=place / "s")
        for job in jobs.expand(request):
            execute(job, NoProgress())
        found.append(needed())
        print(f"round {number + 1}: {found[-1]}", file=sys.stderr, flush=True)
    return found


def growth(found: list[Needed]) -> list[str]:
    """Return what grew between the first half, after two rounds to warm up, and the second."""
    middle = max(1, len(found) // 2)
    first, second = found[min(2, middle - 1) : middle], found[middle:]
    grown = []
    for name, k, slack in (("megabytes", 0, SLACK_MB), ("handles", 1, 0), ("threads", 2, 0), ("temporary", 3, 0)):
        before, after = (max(astuple(round_)[k] for round_ in rounds) for rounds in (first, second))
        if after > before + slack:
            grown.append(f"{name} grew from {before} to {after}")
    return grown


def main() -> int:
    """Run the long form: all ten tasks."""
    import subprocess

    times = int((*sys.argv[1:], "20")[0])
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        synth = [sys.executable, "-m", "superb_eval", "corpus", "synth", "--size", "nano", "--out", str(corpus)]
        subprocess.run(synth, check=True)
        found = run(corpus, Path(folder) / "runs", jobs.SUPERB, times)
    grown = growth(found)
    print(f"{times} rounds: first {found[0]}, last {found[-1]}: {grown or 'nothing grows'}")
    return int(bool(grown))


if __name__ == "__main__":
    sys.exit(main())
