"""One task of a job array: `python -m superb_eval.suite.executors.array_task cells|passes FILE NUMBER` runs that line.

Exit codes as the command line's: 0 done, or somebody else runs it; 2 its user can mend it; 1 something broke.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.runtime.progress import TerminalProgress
from superb_eval.suite.jobs import Job
from superb_eval.suite.leases import BusyError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one cell, or the pass before it."""
    from superb_eval.suite.execute import execute, extract

    what, path, number = sys.argv[1:] if arguments is None else arguments
    job = Job.loads(Path(path).read_text(encoding="utf8").splitlines()[int(number)])
    try:
        if what == "passes":
            extract(job, TerminalProgress())
        else:
            print(execute(job, TerminalProgress()).figures)
    except BusyError as error:
        print(f"{job}: {error} runs it already.", file=sys.stderr)
    except UserError as error:
        print(f"superb-eval: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
