"""The log of a run, `run.log` in its folder: what the run printed, with time stamps; appended to when it is resumed."""

from __future__ import annotations

import os
import platform
import stat
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from io import RawIOBase
from pathlib import Path
from typing import Any

from superb_eval.errors import OwnCodeError, UserError
from superb_eval.runtime import atomic_files, environment
from superb_eval.runtime.progress import Progress, Update
from superb_eval.runtime.screen import visible

NAME = "run.log"

STEP_SECONDS = 60.0
"""Seconds between two lines about one step."""

_PATH = "run_log"
"""Attribute of an exception that ended a run: the path of its log."""


def _open_log(folder: Path) -> RawIOBase:
    """Open the log of a run to append to it; in a folder of somebody else its name may lead anywhere."""
    path = folder / NAME
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise UserError(f"{path}: is no regular file. Remove it, or choose another --out.")
    return path.open("ab", buffering=0)


class LoggingProgress:
    """A `superb_eval.runtime.progress.Progress` that forwards to another one and writes the logs of runs.

    A run's folder is known only once its inputs are loaded; the lines until then begin each log.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._earlier: list[str] = []
        self._files: list[RawIOBase] = []

    def log(self, text: str) -> None:
        """Show and write one line."""
        self.write(text)
        self.progress.log(text)

    def write(self, text: str) -> None:
        """Write lines, and show none."""
        self._append(_stamped(text))

    @contextmanager
    def step(self, name: str, total: int, done: int = 0) -> Iterator[Update]:
        """Show the progress of a step; write a line a minute, and one at its end."""
        began = last = time.monotonic()
        line = name

        def update(done: int, postfix: str = "", total: int | None = total) -> None:
            nonlocal last, line
            line = f"{name}: {done}/{total}  {postfix}".rstrip()
            if time.monotonic() - last >= STEP_SECONDS:
                last = time.monotonic()
                self.write(line)
            forward(done, postfix, total)

        with self.progress.step(name, total, done) as forward:
            try:
                yield update
            finally:
                self.write(f"{line}; {time.monotonic() - began:.1f} s")

    @contextmanager
    def written_to(self, commands: Mapping[Path, str]) -> Iterator[None]:
        """Append to the logs of runs while the context lasts: also warnings, and the error that ends it.

        `commands` has the command of each run, by its folder.

        Raises:
            UserError: the disk is full or may not be written, or a log is a link, a pipe or a device.
        """
        with ExitStack() as stack:
            stack.callback(self._files.clear)
            for folder, command in commands.items():
                with atomic_files.explain_disk_errors(folder / NAME):
                    file = stack.enter_context(_open_log(folder))
                    file.write((_stamped(f"{command}\n{_environment()}") + "".join(self._earlier)).encode())
                self._files.append(file)
            stack.enter_context(self._warnings())
            try:
                yield
            except BaseException as error:
                self.write(_ending(error))
                setattr(error, _PATH, next(iter(commands)) / NAME)
                raise

    @contextmanager
    def _warnings(self) -> Iterator[None]:
        """Write warnings, which Python shows as it would."""
        show = warnings.showwarning

        def write_and_show(message: Warning | str, *details: Any, **more: Any) -> None:
            self.write(f"warning: {message}")
            show(message, *details, **more)

        warnings.showwarning = write_and_show
        try:
            yield
        finally:
            warnings.showwarning = show

    def _append(self, lines: str) -> None:
        if not self._files:
            self._earlier.append(lines)
        for file in self._files:
            with suppress(OSError):  # a full disk stops the run itself, not its log
                file.write(lines.encode())


def path_of(error: BaseException) -> Path | None:
    """Return the log of the run that an exception ended; None where it ended before its folder was known."""
    path = getattr(error, _PATH, None)
    return path if isinstance(path, Path) else None


def _stamped(text: str) -> str:
    """Return lines with the time before each; what a terminal would act on is written as its code."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    return "".join(f"{now}  {visible(line)}\n" for line in text.splitlines())


def _environment() -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions().items())
    return f"{versions}; {platform.platform()}"


def _ending(error: BaseException) -> str:
    if isinstance(error, UserError) and not isinstance(error, OwnCodeError):
        return f"failed: {error}"
    if isinstance(error, Exception):
        return f"failed:\n{''.join(traceback.format_exception(error))}"
    return f"stopped: {type(error).__name__}"
