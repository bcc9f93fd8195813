"""Locks between processes: a lock file is never followed as a link, and what is wrong is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files


@contextmanager
def hold(path: Path, timeout: float = -1.0) -> Iterator[None]:
    """Hold the lock of a lock file, which is created with its folder, while the context lasts.

    Args:
        path: the lock file.
        timeout: seconds to wait for another process; negative: until that one has finished.

    Raises:
        UserError: the lock file belongs to another user, is a link or a folder, or can't be created.
        filelock.Timeout: another process holds it.
    """
    lock = FileLock(path)
    with atomic_files.explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            raise UserError(f"{path}: is a link where a lock file belongs. Remove it.")
        lock.acquire(timeout=timeout)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def hold_alone(path: Path, held: str) -> Iterator[None]:
    """Hold a lock while the context lasts, or report at once that another process does.

    Raises:
        UserError: `held`, the message for that case; or see `hold`.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(path, timeout=0))
        except Timeout:
            raise UserError(held) from None
        yield
