"""The command line as a campaign calls it: in this process, with its output and exit status."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and its exit status: 0, 2 for a sentence, 1 and a traceback in `error` for a fault."""

    code: int
    output: str
    error: str


def superb_eval(*words: object) -> Outcome:
    """Call `superb-eval` with these words."""
    import traceback

    from superb_eval.cli import app

    output, error = io.StringIO(), io.StringIO()
    before, code = sys.argv, 0
    sys.argv = ["superb-eval", *map(str, words)]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
            app.main()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
    except Exception:
        error.write(traceback.format_exc())
        code = 1
    finally:
        sys.argv = before
    return Outcome(code, output.getvalue(), error.getvalue())
