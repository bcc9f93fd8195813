"""Files of one JSON object a line, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from superb_eval.errors import UserError


def read(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each object with its line, from 1; blank lines are skipped.

    Raises:
        UserError: the file can't be read, or a line is no JSON object; the line is named.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object(path, number, line)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: can't be read ({error}). Check that it is complete.") from error


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:  # text that isn't UTF-8 too
        raise UserError(f"{path}: line {number} is not valid JSON ({error}). Fix it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: line {number} is no JSON object, but {type(content).__name__}. Fix it.")
    return content


def text(value: Any) -> str:
    """Return a JSON value as text without surrounding spaces: null as empty text, lists separated by spaces."""
    if value is None:
        return ""
    return " ".join(map(text, value)) if isinstance(value, list) else str(value).strip()
