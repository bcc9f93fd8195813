"""Files that somebody else may have written: regular, of a bounded size, UTF-8; what is wrong is one sentence.

A name in a shared folder may be a pipe that is never written, a link to a device that never ends, or a file larger
than memory.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from superb_eval.errors import UserError
from superb_eval.runtime import system_errors

MOST_BYTES = 64 * 2**20
"""Bytes of a text file unless its reader allows more: records, settings and label files hold far less."""


def open_regular(path: Path, most: int | None = None) -> BinaryIO:
    """Open a regular file, or a link to one, for reading; nothing is waited for.

    Args:
        path: the file.
        most: bytes that it may hold; None: any number.

    Raises:
        UserError: there is none, it is a folder, a pipe or a device, it holds more, or it may not be read.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for a writer; for regular files it changes nothing.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: the name holds a NUL
        raise _refusal(path, error) from error
    try:
        _check(path, os.fstat(descriptor), most)
    except UserError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def check_regular(path: Path, most: int | None = None) -> None:
    """Refuse what `open_regular` refuses, for libraries that open a file by its path.

    Raises:
        UserError: as `open_regular`.
    """
    open_regular(path, most).close()


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return the bytes of a regular file of at most `most` bytes.

    Raises:
        UserError: as `open_regular`.
    """
    with open_regular(path, most) as file:
        try:
            content = file.read(most + 1)  # it may grow while it is read
        except OSError as error:
            raise _refusal(path, error) from error
    if len(content) > most:
        raise UserError(_too_large(path, len(content), most))
    return content


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Return the text of a regular UTF-8 file of at most `most` bytes; lines end in a newline alone.

    Raises:
        UserError: as `open_regular`, or it is no UTF-8, with the line.
    """
    content = read_bytes(path, most)
    try:
        text = content.decode("utf8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line}: is no UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """Return the values of a regular file of JSON of at most `most` bytes.

    Raises:
        UserError: as `read_text`, or it is no JSON, with the line.
    """
    return parse_json(read_text(path, most), str(path))


def parse_json(text: str, source: str) -> Any:
    """Return the values of a JSON text; `source` is what messages call it.

    Raises:
        UserError: it is no JSON, with the line, is nested too deeply, or holds a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{source}: line {error.lineno}: is no JSON: {error.msg}.") from error
    except RecursionError as error:
        raise UserError(f"{source}: is JSON nested too deeply to be read.") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise UserError(f"{source}: holds a number of too many digits.") from error


def _check(path: Path, status: os.stat_result, most: int | None) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path}: is a folder. Name a file in it.")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: is a pipe, a socket or a device. Only regular files are read.")
    if most is not None and status.st_size > most:
        raise UserError(_too_large(path, status.st_size, most))


def _too_large(path: Path, size: int, most: int) -> str:
    return f"{path}: holds {size} bytes or more, at most {most} are read of such a file. Is it the right one?"


def _refusal(path: Path, error: OSError | ValueError) -> UserError:
    """Return the error that replaces one of the operating system's."""
    return UserError(system_errors.sentence(error, path) or f"{path}: can't be opened: {error}.")
