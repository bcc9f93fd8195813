"""Files that are either whole or absent, and one sentence for what keeps them from being written."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from superb_eval.errors import UserError

PART = ".part"  # the ending of a file that is still being written
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


def write_whole(path: Path, data: bytes) -> None:
    """Write to a temporary name beside `path`, sync and rename: whoever finds `path` finds all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A table with a header, in UTF-8, with the same bytes on every platform."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def explain(error: OSError, folder: Path) -> UserError | None:
    """The sentence for a full disk or a place that cannot be written; None for anything else."""
    path = error.filename or folder
    if error.errno in _FULL:
        return UserError(
            f"the disk is full at {path}: free some space and run the same command again, finished parts are kept."
        )
    if error.errno in _FORBIDDEN:
        return UserError(f"cannot write {path} ({error.strerror}): choose another output folder.")
    return None
