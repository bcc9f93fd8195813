"""Runs cells as job arrays of SLURM: scripts are written, submitted, and followed by the ledger.

`OUT/.suite/slurm/<digest>/` holds the cells, one a line, and two scripts that `submit.sh` hands to `sbatch`: passes,
each of which fills the store for cells that share features, then the cells. A task takes the line of its number:

    SLURM_ARRAY_TASK_ID=3 bash cells.sh

Machines share the folders of corpora, results and features, and this Python.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files
from superb_eval.suite.events import Tell
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import PLACE, Job
from superb_eval.suite.monitor import Monitor
from superb_eval.suite.resources import Resources, on_shared_folders, passes

EVERY = 5.0
"""Seconds between two looks at the ledger."""

QUEUE_EVERY = 60.0
"""Seconds between two questions to SLURM: whether the arrays are still in its queue."""


@dataclass(frozen=True)
class Slurm:
    """A `superb_eval.suite.events.Scheduler`; `options` go to `sbatch` as they are, such as `--partition=gpu`."""

    demand: Resources
    options: tuple[str, ...] = ()
    at_once: int = 0
    """Cells that run at a time; 0: as many as SLURM lets."""

    def run(self, jobs: Sequence[Job], tell: Tell) -> None:
        """See `Scheduler.run`; interrupted, it leaves what was submitted to SLURM, and the same command follows on.

        Raises:
            UserError: there is no `sbatch` here, or it refuses.
        """
        folder = self.write(jobs)
        follower = Monitor(JobStates(jobs[0].out), jobs, tell)
        numbers = submit(folder)
        asked = time.monotonic()
        while follower.open:
            time.sleep(EVERY)
            follower.look()
            if time.monotonic() - asked >= QUEUE_EVERY:
                asked = time.monotonic()
                if not queued(numbers):
                    follower.look()
                    for job in list(follower.open):
                        follower.died(job, f"SLURM's job {numbers[-1]} is over, and this cell is not")

    def write(self, jobs: Sequence[Job]) -> Path:
        """Write the cells and the scripts; return their folder.

        Raises:
            UserError: an option holds a line break, or the disk is full.
        """
        shared = [on_shared_folders(job) for job in jobs]
        first = [sharing[0] for sharing in passes(shared).values() if len(sharing) > 1]
        cells = "".join(job.dumps() + "\n" for job in shared)
        folder = shared[0].out / PLACE / "slurm" / hashlib.sha256(cells.encode()).hexdigest()[:12]
        atomic_files.write_text(folder / "cells.jsonl", cells)
        atomic_files.write_text(folder / "passes.jsonl", "".join(job.dumps() + "\n" for job in first))
        atomic_files.write_text(folder / "cells.sh", self._array(folder, "cells", len(shared)))
        if first:
            atomic_files.write_text(folder / "passes.sh", self._array(folder, "passes", len(first)))
        atomic_files.write_text(folder / "submit.sh", _submission(folder, bool(first)))
        return folder

    def _array(self, folder: Path, what: str, count: int) -> str:
        """Return the script of an array; whatever a user wrote is quoted."""
        limit = f"%{self.at_once}" if self.at_once else ""
        options = [
            f"--job-name=superb-eval-{what}",
            f"--array=0-{count - 1}{limit}",
            f"--cpus-per-task={self.demand.cpu}",
            f"--output={folder}/{what}-%a.log",
            *([f"--gres=gpu:{max(1, round(self.demand.gpu))}"] if self.demand.gpu else []),
            *([f"--mem={round(self.demand.memory_gb * 1000)}M"] if self.demand.memory_gb else []),
            *self.options,
        ]
        if any(not option.startswith("-") or not option.isprintable() for option in options):
            raise UserError(f"--slurm-options: {' '.join(self.options)}: expected options such as --partition=gpu.")
        lines = [f"#SBATCH {shlex.quote(option)}" for option in options]
        task = shlex.join(
            [sys.executable, "-m", "superb_eval.suite.executors.array_task", what, str(folder / f"{what}.jsonl")]
        )
        threads = f"export OMP_NUM_THREADS={self.demand.cpu} MKL_NUM_THREADS={self.demand.cpu}"
        body = [f"cd {shlex.quote(os.getcwd())}", threads, f'exec {task} "$SLURM_ARRAY_TASK_ID"']
        return "\n".join(["#!/bin/bash", *lines, "set -eu", *body]) + "\n"


def _submission(folder: Path, with_passes: bool) -> str:
    """Return the script that submits the arrays and prints their numbers, a line each."""
    cells, first = (shlex.quote(str(folder / f"{what}.sh")) for what in ("cells", "passes"))
    lines = ["#!/bin/bash", "set -eu"]
    if with_passes:
        lines += [f"passes=$(sbatch --parsable {first})", 'echo "$passes"']
    after = '--dependency="afterany:${passes%%;*}" ' if with_passes else ""
    return "\n".join([*lines, f"sbatch --parsable {after}{cells}"]) + "\n"


def submit(folder: Path) -> list[str]:
    """Submit what `Slurm.write` wrote; return the numbers of the arrays.

    Raises:
        UserError: there is no `sbatch` here, or it refuses.
    """
    script = folder / "submit.sh"
    if shutil.which("sbatch") is None:
        raise UserError(
            f"--slurm: there is no sbatch here. The scripts are written: `bash {script}` on a machine that has it, "
            f"then `superb-eval board {folder.parents[2]}`."
        )
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"--slurm: sbatch refuses: {done.stderr.strip()[-500:]} (see {script}).")
    return [line.partition(";")[0].strip() for line in done.stdout.splitlines() if line.strip()]


def queued(numbers: Sequence[str]) -> bool:
    """Say whether SLURM still has one of the jobs in its queue; where it can't be asked, that it has."""
    try:
        command = ["squeue", "--noheader", "--jobs", ",".join(numbers)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return True
    # squeue refuses numbers that it has forgotten, once all of them are over.
    return bool(done.stdout.strip()) or (done.returncode != 0 and "Invalid job id" not in done.stderr)
