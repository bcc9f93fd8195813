"""Atomic writes: temporary name, sync, rename.

A killed process leaves its temporary file, whose name holds the machine and the process id. The next process that
writes the same file removes it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from superb_eval.errors import UserError
from superb_eval.runtime import processes, system_errors

READER_SECONDS = 2.0
"""Seconds for which a pipe's reader is waited for."""


@contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn disk errors that a user can fix into one sentence that names the file.

    Raises:
        UserError: the disk is full or may not be written.
    """
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)  # not the temporary file
        sentence = system_errors.sentence(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Let `save` write a temporary file next to `path`, sync it and rename it into place.

    After a kill or a power loss the file is the old one or the new one, never half of one. Its permissions are those of
    any new file there, whatever `save` gave it, so that those with whom a folder is shared can read it. What is no
    regular file, such as a device or a pipe, is written in place.

    Raises:
        UserError: the disk is full or may not be written, or there is a folder.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder. Name a file in it.")
    if path.exists() and not path.is_file():  # renamed onto, a device would be gone
        with TemporaryDirectory() as folder, explain_disk_errors(path):
            save(Path(folder) / path.name)
            with _open_in_place(path) as file:
                file.write((Path(folder) / path.name).read_bytes())
        return
    with _temporary_file(path, save) as temporary:
        temporary.replace(path)


def _open_in_place(path: Path) -> BinaryIO:
    """Open a device or a pipe for writing; a pipe that nobody reads is waited for a moment only, since one may never.

    Raises:
        OSError: it can't be written; ENXIO: nobody reads the pipe.
    """
    until = time.monotonic() + READER_SECONDS
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            os.set_blocking(descriptor, True)
            return os.fdopen(descriptor, "wb")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write(path, lambda temporary: temporary.write_text(text, encoding="utf8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    write(path, lambda temporary: temporary.write_bytes(data))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; it may be larger than memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def create_text(path: Path, text: str) -> bool:
    """Write UTF-8 text atomically unless the file exists; return whether it was written.

    Of several processes, on any number of machines, exactly one gets True: making a hard link is atomic, on network
    file systems too.

    Raises:
        UserError: the disk is full or may not be written.
    """
    with _temporary_file(path, lambda temporary: temporary.write_text(text, encoding="utf8")) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    return True


def check_archive(path: Path) -> None:
    """Verify the checksums in a file of `torch.save`, which `torch.load` ignores.

    Raises:
        ValueError, OSError, zipfile.BadZipFile: the file is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} in it differs")


@contextmanager
def _temporary_file(path: Path, save: Callable[[Path], object]) -> Iterator[Path]:
    """Yield a synced temporary file that `save` wrote; remove it afterwards, and sync the folder."""
    if not path.name:  # of an empty text, or of a root
        raise UserError(f"{path}: is a folder. Name a file in it.")
    temporary = path.with_name(f".{path.name}.{processes.machine_id()}-{os.getpid()}-{secrets.token_hex(3)}.tmp")
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        try:
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode  # as the user's umask and the folder have it
            _save(save, temporary)
            if temporary.stat().st_mode != mode:  # safetensors' files are for their owner alone
                with suppress(OSError):  # a file system without permissions: the content is what matters
                    temporary.chmod(stat.S_IMODE(mode))
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


def _save(save: Callable[[Path], object], temporary: Path) -> None:
    """Let `save` write; a disk error that a library wraps in its own exception is raised as an `OSError` again."""
    try:
        save(temporary)
    except OSError:
        raise
    except Exception as error:
        # safetensors reports the errno and removes the file; torch does neither, so writing again raises it.
        errno_text = re.search(r"\(os error (\d+)\)", str(error))
        if errno_text:
            raise OSError(int(errno_text[1]), os.strerror(int(errno_text[1]))) from error
        if temporary.is_file():
            with temporary.open("ab") as file:
                file.write(bytes(2**16))
                file.flush()
                os.fsync(file.fileno())
        raise


def _remove_stale(path: Path) -> None:
    """Remove the temporary files of `path` that dead processes of this machine left."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.{processes.machine_id()}-(\d+)-[0-9a-f]+\.tmp")
    with os.scandir(path.parent) as entries:
        leftovers = [(entry.path, match) for entry in entries if (match := pattern.fullmatch(entry.name))]
    for name, match in leftovers:
        if not processes.is_alive(int(match[1])):
            Path(name).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Sync a folder so that a rename survives a power loss; nothing where folders can't be opened (Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems can't sync folders
            raise
    finally:
        os.close(descriptor)
