"""One task of a SLURM job array: `python -m superb_eval.suite.executors.array_task runs|passes FILE NUMBER`.

It executes the run, or extracts the features, of that line of FILE. Exit codes as the command line's: 0 done, or
another process executes it; 2 an error that the user can fix; 1 something broke.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.runtime.progress import TerminalProgress
from superb_eval.runtime.screen import show
from superb_eval.suite.jobs import Job
from superb_eval.suite.leases import BusyError


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute one run, or the pass that stores features for several; return the exit code."""
    from superb_eval.suite.execute import execute, extract

    kind, path, number = sys.argv[1:] if arguments is None else arguments
    job = Job.loads(Path(path).read_text(encoding="utf8").splitlines()[int(number)])
    try:
        if kind == "passes":
            extract(job, TerminalProgress())
        else:
            show(execute(job, TerminalProgress()).figures)
    except BusyError as error:
        show(f"{job}: {error} executes it already.", error=True)
    except UserError as error:
        show(f"superb-eval: {error}", error=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
