"""Writing that is whole or not there: temporary name, sync, rename."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from superb_eval.errors import UserError

_REASONS = {
    errno.ENOSPC: "the disk is full. Free some space and run the same command again: what was finished is kept.",
    errno.EDQUOT: "the disk quota is used up. Free some space and run the same command again.",
    errno.EACCES: "writing there is not permitted. Choose another folder.",
    errno.EROFS: "the file system is read-only. Choose another folder.",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the failures of a disk that a person can mend into one sentence naming the file.

    Raises:
        UserError: the disk is full or may not be written.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise UserError(f"{path}: {reason}") from error


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Let `save` write a temporary file beside `path`, sync it and rename it into place.

    A killed process leaves the old file or the new one, never half of one.

    Raises:
        UserError: the disk is full or may not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write(path, lambda temporary: temporary.write_text(text, encoding="utf8"))
