"""Files of one JSON object a line, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from superb_eval.data.table_io import MAX_BYTES, MAX_LINE
from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

MAX_DEPTH = 50
"""Levels of lists and objects in a line; Lhotse's have six."""


def read(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each object with its line, from 1; blank lines are skipped.

    Raises:
        UserError: the file can't be read, or a line is no JSON object; the line is named.
    """
    try:
        with outside_files.open_regular(path, MAX_BYTES) as stored:
            file = gzip.GzipFile(fileobj=stored) if path.suffix == ".gz" else stored
            for number, line in enumerate(_lines(path, file), start=1):
                if line.strip():
                    yield number, _object(path, number, line)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: can't be read ({error}). Check that it is complete.") from error


def _lines(path: Path, file: gzip.GzipFile | BinaryIO) -> Iterator[bytes]:
    """Yield the lines, of bounded length and sum: a compressed file may hold a thousand times its size."""
    size = 0
    while line := file.readline(MAX_LINE + 1):
        size += len(line)
        if len(line) > MAX_LINE or size > MAX_BYTES:
            raise UserError(f"{path}: holds more than {MAX_BYTES} bytes, or a line of more than {MAX_LINE}. Divide it.")
        yield line


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:  # text that isn't UTF-8, and numbers of thousands of digits, too
        raise UserError(f"{path}: line {number} is not valid JSON ({error}). Fix it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: line {number} is no JSON object, but {type(content).__name__}. Fix it.")
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _is_deep(content, MAX_DEPTH):
        raise UserError(f"{path}: line {number} is nested deeper than {MAX_DEPTH} levels. Fix it.")
    return content


def _is_deep(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deep(each, levels - 1) for each in inner)


def text(value: Any) -> str:
    """Return a JSON value as text without surrounding spaces: null as empty text, lists separated by spaces."""
    if value is None:
        return ""
    return " ".join(map(text, value)) if isinstance(value, list) else str(value).strip()
