"""A soak test: `python -m tests.campaigns soak [TIMES]` runs the nano suite repeatedly in one process tree.

After each round memory, open files and threads of the process are measured, and files in the temporary folder. Growth
from round to round is a leak: the second half of the rounds must need no more than the first, except for `SLACK_MB`.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from superb_eval.runtime.progress import NoProgress
from superb_eval.suite import jobs
from superb_eval.suite.execute import execute
from superb_eval.suite.jobs import SuiteConfig

SLACK_MB = 30.0
"""Allocators retain some; a leak of a corpus's features or a head at each round would be more after ten rounds."""


@dataclass(frozen=True)
class Usage:
    """Resources of this process: resident megabytes, open files, threads, and entries in the temporary folder."""

    megabytes: float
    handles: int
    threads: int
    temporary: int


def measure() -> Usage:
    """Measure the resources of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    handles = len(os.listdir("/proc/self/fd"))
    entries = len(os.listdir(tempfile.gettempdir()))
    return Usage(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, handles, threading.active_count(), entries)


def run(corpus: Path, folder: Path, tasks: tuple[str, ...], times: int, overrides: tuple[str, ...] = ()) -> list[Usage]:
    """Run the suite `times` times in this process, each in its own results folder and store."""
    rounds = []
    temporary = folder / "temporary"  # other processes fill the common one
    temporary.mkdir(parents=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    for number in range(times):
        part = folder / str(number)
        config = SuiteConfig(("fbank_nonorm",), tasks, corpus, "nano", overrides, out=part / "r", store=part / "s")
        for job in jobs.expand(config):
            execute(job, NoProgress())
        rounds.append(measure())
        print(f"round {number + 1}: {rounds[-1]}", file=sys.stderr, flush=True)
    return rounds


def growth(rounds: list[Usage]) -> list[str]:
    """Return what grew between the first half, after two rounds to warm up, and the second."""
    middle = max(1, len(rounds) // 2)
    first, second = rounds[min(2, middle - 1) : middle], rounds[middle:]
    grown = []
    for name, k, slack in (("megabytes", 0, SLACK_MB), ("handles", 1, 0), ("threads", 2, 0), ("temporary", 3, 0)):
        before, after = (max(astuple(usage)[k] for usage in half) for half in (first, second))
        if after > before + slack:
            grown.append(f"{name} grew from {before} to {after}")
    return grown


def main(arguments: Sequence[str]) -> int:
    """Run the long form: all ten tasks."""
    import subprocess

    times = int((*arguments, "20")[0])
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        synth = [sys.executable, "-m", "superb_eval", "corpus", "synth", "--size", "nano", "--out", str(corpus)]
        subprocess.run(synth, check=True)
        rounds = run(corpus, Path(folder) / "runs", jobs.SUPERB, times)
    grown = growth(rounds)
    print(f"{times} rounds: first {rounds[0]}, last {rounds[-1]}: {grown or 'nothing grows'}")
    return int(bool(grown))
