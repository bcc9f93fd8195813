"""Commands as typed, in this process: `type_command("run", "ks", ...)` runs the command line and keeps its output."""

from __future__ import annotations

import io
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from superb_eval.cli import app


@dataclass(frozen=True)
class TypedCommand:
    """What came of a command: its exit code (1: a traceback), and what it printed."""

    code: int
    out: str
    err: str

    @property
    def refused(self) -> bool:
        """Whether it ended as a user's mistake does: exit code 2 and a sentence, without a traceback."""
        return self.code == 2 and bool(self.err.strip()) and "Traceback" not in self.err


def type_command(*words: object) -> TypedCommand:
    """Run `superb-eval WORDS` as the shell would; an exception that reaches the shell is printed, with exit code 1."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf8", "backslashreplace", write_through=True) for _ in range(2))
    code, arguments = 0, sys.argv
    sys.argv = ["superb-eval", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            try:
                app.main()
            except SystemExit as exit_:
                code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
            except BaseException:
                code = 1
                traceback.print_exc()
    finally:
        sys.argv = arguments
    return TypedCommand(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))  # type: ignore[attr-defined]
