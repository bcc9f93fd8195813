"""Executes runs as job arrays of SLURM: writes scripts, submits them, and monitors the states of the runs.

`OUT/.suite/slurm/<digest>/` holds the runs, one a line, and two scripts that `submit.sh` gives to `sbatch`: passes,
each of which stores features for runs that share them, then the runs. A task takes the line of its number:

    SLURM_ARRAY_TASK_ID=3 bash runs.sh

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
from superb_eval.suite.events import EventHandler
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import SUITE_FOLDER, Job
from superb_eval.suite.monitor import Monitor
from superb_eval.suite.resources import Resources, shared_passes, with_absolute_folders

POLL_SECONDS = 5.0
"""Seconds between two looks at the states of the runs."""

QUEUE_POLL_SECONDS = 60.0
"""Seconds between two queries of SLURM's queue."""


@dataclass(frozen=True)
class Slurm:
    """A `superb_eval.suite.events.Scheduler`; `options` are passed to `sbatch`, such as `--partition=gpu`."""

    resources: Resources
    options: tuple[str, ...] = ()
    at_once: int = 0
    """Runs at a time; 0: no limit of ours."""

    def run(self, jobs: Sequence[Job], on_event: EventHandler) -> None:
        """See `Scheduler.run`; when interrupted, SLURM continues, and the same command monitors it again.

        Raises:
            UserError: there is no `sbatch` here, or it refuses.
        """
        folder = self.write(jobs)
        monitor = Monitor(JobStates(jobs[0].out), jobs, on_event)
        job_ids = submit(folder)
        queried = time.monotonic()
        while monitor.pending:
            time.sleep(POLL_SECONDS)
            monitor.poll()
            if time.monotonic() - queried >= QUEUE_POLL_SECONDS:
                queried = time.monotonic()
                if not is_queued(job_ids):
                    monitor.poll()
                    for job in list(monitor.pending):
                        monitor.report_death(job, f"SLURM's job {job_ids[-1]} is over, and this run is not finished")

    def write(self, jobs: Sequence[Job]) -> Path:
        """Write the runs and the scripts; return their folder.

        Raises:
            UserError: an option holds a line break, or the disk is full.
        """
        runs = [with_absolute_folders(job) for job in jobs]
        passes = [sharing[0] for sharing in shared_passes(runs).values() if len(sharing) > 1]
        lines = "".join(job.dumps() + "\n" for job in runs)
        folder = runs[0].out / SUITE_FOLDER / "slurm" / hashlib.sha256(lines.encode()).hexdigest()[:12]
        atomic_files.write_text(folder / "runs.jsonl", lines)
        atomic_files.write_text(folder / "passes.jsonl", "".join(job.dumps() + "\n" for job in passes))
        atomic_files.write_text(folder / "runs.sh", self._array(folder, "runs", len(runs)))
        if passes:
            atomic_files.write_text(folder / "passes.sh", self._array(folder, "passes", len(passes)))
        atomic_files.write_text(folder / "submit.sh", _submission(folder, bool(passes)))
        return folder

    def _array(self, folder: Path, kind: str, count: int) -> str:
        """Return the script of a job array (`runs` or `passes`); everything that the user wrote is quoted."""
        limit = f"%{self.at_once}" if self.at_once else ""
        options = [
            f"--job-name=superb-eval-{kind}",
            f"--array=0-{count - 1}{limit}",
            f"--cpus-per-task={self.resources.cpu}",
            f"--output={folder}/{kind}-%a.log",
            *([f"--gres=gpu:{max(1, round(self.resources.gpu))}"] if self.resources.gpu else []),
            *([f"--mem={round(self.resources.memory_gb * 1000)}M"] if self.resources.memory_gb else []),
            *self.options,
        ]
        if any(not option.startswith("-") or not option.isprintable() for option in options):
            raise UserError(f"--slurm-options: {' '.join(self.options)}: expected options such as --partition=gpu.")
        lines = [f"#SBATCH {shlex.quote(option)}" for option in options]
        task = shlex.join(
            [sys.executable, "-m", "superb_eval.suite.executors.array_task", kind, str(folder / f"{kind}.jsonl")]
        )
        threads = f"export OMP_NUM_THREADS={self.resources.cpu} MKL_NUM_THREADS={self.resources.cpu}"
        body = [f"cd {shlex.quote(os.getcwd())}", threads, f'exec {task} "$SLURM_ARRAY_TASK_ID"']
        return "\n".join(["#!/bin/bash", *lines, "set -eu", *body]) + "\n"


def _submission(folder: Path, with_passes: bool) -> str:
    """Return the script that submits the arrays and prints their job ids, one a line."""
    runs, passes = (shlex.quote(str(folder / f"{kind}.sh")) for kind in ("runs", "passes"))
    lines = ["#!/bin/bash", "set -eu"]
    if with_passes:
        lines += [f"passes=$(sbatch --parsable {passes})", 'echo "$passes"']
    after = '--dependency="afterany:${passes%%;*}" ' if with_passes else ""
    return "\n".join([*lines, f"sbatch --parsable {after}{runs}"]) + "\n"


def submit(folder: Path) -> list[str]:
    """Submit the scripts that `Slurm.write` wrote; return the job ids of the arrays.

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


def is_queued(job_ids: Sequence[str]) -> bool:
    """Return whether SLURM still has one of the jobs in its queue; True where it can't be queried."""
    try:
        command = ["squeue", "--noheader", "--jobs", ",".join(job_ids)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return True
    # squeue refuses job ids that it has forgotten, once all of them are over.
    return bool(done.stdout.strip()) or (done.returncode != 0 and "Invalid job id" not in done.stderr)
