"""RTTM files: who speaks when, one turn a line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from superb_eval.data.manifest import Turn
from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

MAX_BYTES = 2**28
"""Of a file: two million turns."""


@dataclass(frozen=True)
class RttmLine:
    """A turn and its line in the RTTM file, from 1."""

    number: int
    recording: str
    turn: Turn


def read_rttm(path: Path) -> tuple[list[RttmLine], list[str]]:
    """Return an RTTM file's turns, and a sentence for each line that is malformed.

    A line is `SPEAKER recording channel start duration <NA> <NA> speaker ...`, separated by spaces or tabs; other types
    of line than SPEAKER, blank lines and comments (`;`) are ignored.

    Raises:
        UserError: the file is missing, isn't text, or holds more than `MAX_BYTES`.
    """
    if not path.exists():
        raise UserError(f"{path}: can't be read as an RTTM file: there is none. It must list the speaker turns.")
    lines, bad = [], []
    for number, content in enumerate(outside_files.read_text(path, MAX_BYTES).splitlines(), start=1):
        fields = content.split()
        if fields[:1] == ["SPEAKER"]:
            turn = _turn(fields)
            if turn is None:
                bad.append(
                    f"line {number}: '{content.strip()[:80]}' is not 'SPEAKER recording 1 start duration ... speaker'"
                )
            else:
                lines.append(RttmLine(number, fields[1], turn))
        elif fields and not content.startswith(";") and not fields[0].isupper():
            bad.append(f"line {number}: '{content.strip()[:80]}' doesn't begin with a type such as SPEAKER")
    return lines, bad


def _turn(fields: Sequence[str]) -> Turn | None:
    try:
        start, duration = float(fields[3]), float(fields[4])
        speaker = fields[7]
    except (ValueError, IndexError):
        return None
    # Written so that NaN is refused too.
    valid = 0 <= start < math.inf and 0 < duration < math.inf
    return Turn(start, start + duration, speaker) if valid else None


def group_by_recording(lines: Iterable[RttmLine]) -> dict[str, tuple[RttmLine, ...]]:
    """Return the lines of each recording, in their order."""
    groups: dict[str, list[RttmLine]] = {}
    for line in lines:
        groups.setdefault(line.recording, []).append(line)
    return {recording: tuple(group) for recording, group in groups.items()}
