"""One task of a SLURM job array: `python -m superb_eval.suite.executors.array_task runs|passes FILE NUMBER`.

It executes the run, or extracts the features, of that line of FILE. Exit codes as the command line's: 0 done, or
another process executes it; 2 an error that the user can fix; 1 something broke.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.runtime import outside_files, system_errors
from superb_eval.runtime.progress import TerminalProgress
from superb_eval.runtime.screen import show
from superb_eval.suite.jobs import Job
from superb_eval.suite.leases import BusyError


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute one run, or the pass that stores features for several; return the exit code."""
    from superb_eval.suite.execute import execute, extract

    kind, path, number = sys.argv[1:] if arguments is None else arguments
    try:
        job = _job(Path(path), number)
        if kind == "passes":
            extract(job, TerminalProgress())
        else:
            show(execute(job, TerminalProgress()).figures)
    except BusyError as error:
        show(f"{job}: {error} executes it already.", error=True)
    except UserError as error:
        show(f"superb-eval: {error}", error=True)
        return 2
    except OSError as error:
        sentence = system_errors.sentence(error)
        if sentence is None:
            raise
        show(f"superb-eval: {sentence}", error=True)
        return 2
    return 0


def _job(path: Path, number: str) -> Job:
    """Return the job of a line, counted from 0."""
    lines = outside_files.read_text(path).splitlines()
    if not (number.isdecimal() and int(number) < len(lines)):
        raise UserError(f"{path}: has {len(lines)} lines, and SLURM_ARRAY_TASK_ID is '{number}'. They count from 0.")
    try:
        return Job.loads(lines[int(number)])
    except ValueError as error:
        raise UserError(
            f"{path}: line {int(number) + 1}: is no run that --slurm wrote. Submit the suite again."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
