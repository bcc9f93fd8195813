"""Writing that is whole or not there: temporary name, sync, rename.

What a killed process was writing stays behind under its temporary name, which tells the machine and the process. The
next one that writes the same file clears it away.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.runtime import processes

_REASONS = {
    errno.ENOSPC: "the disk is full. Free some space and run the same command again: what was finished is kept.",
    errno.EDQUOT: "the disk quota is used up. Free some space and run the same command again.",
    errno.EFBIG: "files may not grow that large here (`ulimit -f`). Raise the limit and run the same command again.",
    errno.EACCES: "writing there is not permitted. Choose another folder.",
    errno.EPERM: "writing there is not permitted. Choose another folder.",
    errno.ENOTDIR: "there is a file where a folder should be. Choose another folder.",
    errno.EEXIST: "there is a file where a folder should be. Choose another folder.",
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

    A killed process leaves the old file or the new one, never half of one; so does a power loss.

    Raises:
        UserError: the disk is full or may not be written.
    """
    with _written(path, save) as temporary:
        temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write(path, lambda temporary: temporary.write_text(text, encoding="utf8"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; it may be larger than memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def create_text(path: Path, text: str) -> bool:
    """Write UTF-8 text atomically where nothing is yet; return False, and write nothing, where something is.

    Of several processes, on however many machines, one is told True: a hard link is made or is not, on network file
    systems too.

    Raises:
        UserError: the disk is full or may not be written.
    """
    with _written(path, lambda temporary: temporary.write_text(text, encoding="utf8")) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    return True


def check_archive(path: Path) -> None:
    """Compare a file of `torch.save` with the checksums in it, at which `torch.load` doesn't look.

    Raises:
        ValueError, OSError, zipfile.BadZipFile: it isn't what was written.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} in it differs")


@contextmanager
def _written(path: Path, save: Callable[[Path], object]) -> Iterator[Path]:
    """Yield a synced temporary file that `save` wrote; remove it in the end, and sync the folder."""
    temporary = path.with_name(f".{path.name}.{processes.here()}-{os.getpid()}-{secrets.token_hex(3)}.tmp")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        try:
            _save(save, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)


def _save(save: Callable[[Path], object], temporary: Path) -> None:
    """Let `save` write; a full disk that a library tells of in its own words becomes the `OSError` that it was."""
    try:
        save(temporary)
    except OSError:
        raise
    except Exception as error:
        # safetensors names the system's error, and removes the file; torch does neither, and the disk is still full.
        named = re.search(r"\(os error (\d+)\)", str(error))
        if named:
            raise OSError(int(named[1]), os.strerror(int(named[1]))) from error
        if temporary.is_file():
            with temporary.open("ab") as file:
                file.write(bytes(2**16))
                file.flush()
                os.fsync(file.fileno())
        raise


def _sweep(path: Path) -> None:
    """Remove what processes of this machine that are dead were writing in place of `path`."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.{processes.here()}-(\d+)-[0-9a-f]+\.tmp")
    with os.scandir(path.parent) as entries:
        left = [(entry.path, found) for entry in entries if (found := pattern.fullmatch(entry.name))]
    for name, found in left:
        if not processes.lives(int(found[1])):
            Path(name).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Let a rename outlast a power loss; where folders can't be synced (Windows), nothing."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems sync no folders
            raise
    finally:
        os.close(descriptor)
