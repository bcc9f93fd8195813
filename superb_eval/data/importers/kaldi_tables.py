"""Tables of Kaldi data folders: lines of a key and a value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from superb_eval.runtime import outside_files

MAX_BYTES = 2**29
"""Of a table: three million transcripts."""


class TableLine(NamedTuple):
    """A line's value, and its number from 1."""

    value: str
    number: int


class KaldiTable:
    """A table by key, in the order of its lines.

    Lines end in LF or CRLF; keys and values are separated by spaces or tabs; blank lines are skipped. Kaldi asks for
    sorted lines; here any order will do. `bad` gets a sentence for each line that isn't UTF-8, repeats a key, or has no
    value though `valued` asks for one.

    Raises:
        UserError: the file can't be read.
    """

    def __init__(self, path: Path, name: str, bad: list[str], valued: bool = True) -> None:
        self.path, self.name = path, name
        self.lines: dict[str, TableLine] = {}
        for number, content in enumerate(_lines(path), start=1):
            fields = content.split(maxsplit=1)  # bytes: at ASCII's spaces alone, as Kaldi does
            if not fields:
                continue
            try:
                key, value = fields[0].decode(), fields[1].decode() if len(fields) > 1 else ""
            except UnicodeDecodeError:
                bad.append(f"{self.location(number)}: not UTF-8")
                continue
            if key in self.lines:
                bad.append(f"{self.location(number)}: '{key}' is already in line {self.lines[key].number}")
            elif valued and not value:
                bad.append(f"{self.location(number)}: '{key}' has no value")
            else:
                self.lines[key] = TableLine(value.rstrip(), number)

    def location(self, number: int) -> str:
        """Return how messages name a line."""
        return f"{self.name}, line {number}"

    def value(self, key: str) -> str:
        """Return the value of a key, empty where it has no line."""
        line = self.lines.get(key)
        return line.value if line else ""


def _lines(path: Path) -> Iterator[bytes]:
    # Not text's splitlines: it would cut a transcript at the rarer separators of Unicode.
    with outside_files.open_regular(path, MAX_BYTES) as file:
        for number, line in enumerate(file):
            yield line if number else line.removeprefix(b"\xef\xbb\xbf")
