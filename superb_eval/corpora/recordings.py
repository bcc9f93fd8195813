"""Recordings and who speaks when in them: read RTTM files, check turns, and cut recordings into chunks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Manifest, Turn, Utterance, listing
from superb_eval.errors import UserError

FORGIVEN = 0.01
"""Seconds by which turns may overlap or pass the end of their file: RTTM files round their times."""


@dataclass(frozen=True)
class RttmLine:
    """A turn and the line of its RTTM file, from 1."""

    number: int
    recording: str
    turn: Turn


@dataclass(frozen=True)
class Recording:
    """One recording of a split. `lines` are its turns; `line` is its own place in the split's list, 0 where none."""

    id: str
    path: Path
    seconds: float
    lines: tuple[RttmLine, ...]
    labels: dict[str, str] = field(default_factory=dict)
    line: int = 0

    def speakers(self) -> list[str]:
        """Return who speaks, in the order of their names."""
        return sorted({line.turn.speaker for line in self.lines})


def read_rttm(path: Path) -> tuple[list[RttmLine], list[str]]:
    """Return an RTTM file's turns, and a sentence for each line that is malformed.

    A line is `SPEAKER recording channel start duration <NA> <NA> speaker ...`, separated by spaces or tabs; other types
    of line than SPEAKER, blank lines and comments (`;`) are passed over.

    Raises:
        UserError: the file is missing or no text.
    """
    try:
        text = path.read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as an RTTM file ({error}). Write who speaks when into it.") from error
    lines, bad = [], []
    for number, content in enumerate(text.splitlines(), start=1):
        cells = content.split()
        if cells[:1] == ["SPEAKER"]:
            turn = _turn(cells)
            if turn is None:
                bad.append(
                    f"line {number}: '{content.strip()[:80]}' is not 'SPEAKER recording 1 start duration ... speaker'"
                )
            else:
                lines.append(RttmLine(number, cells[1], turn))
        elif cells and not content.startswith(";") and not cells[0].isupper():
            bad.append(f"line {number}: '{content.strip()[:80]}' begins with no type such as SPEAKER")
    return lines, bad


def _turn(cells: Sequence[str]) -> Turn | None:
    try:
        start, duration = float(cells[3]), float(cells[4])
        speaker = cells[7]
    except (ValueError, IndexError):
        return None
    # Written so that NaN is refused too.
    good = 0 <= start < math.inf and 0 < duration < math.inf
    return Turn(start, start + duration, speaker) if good else None


def of_recordings(lines: Iterable[RttmLine]) -> dict[str, tuple[RttmLine, ...]]:
    """Return lines by recording."""
    found: dict[str, list[RttmLine]] = {}
    for line in lines:
        found.setdefault(line.recording, []).append(line)
    return {recording: tuple(group) for recording, group in found.items()}


def problems(recording: Recording, merge: bool) -> list[str]:
    """Return a sentence for each turn that passes the end of its file or overlaps another of the same speaker.

    With `merge` overlaps are none.
    """
    late = [line for line in recording.lines if line.turn.end > recording.seconds + FORGIVEN]
    wrong = [
        f"line {line.number}: the turn ends at {line.turn.end:.3f} s, but {recording.path.name} lasts "
        f"{recording.seconds:.3f} s"
        for line in late
    ]
    return wrong if merge else wrong + [_overlap(a, b) for a, b in overlaps(recording)]


def overlaps(recording: Recording) -> list[tuple[RttmLine, RttmLine]]:
    """Return the pairs of one speaker's turns, one after the other, that overlap by more than `FORGIVEN`."""
    pairs = []
    for speaker in recording.speakers():
        lines = sorted((line for line in recording.lines if line.turn.speaker == speaker), key=lambda line: line.turn)
        last = lines[0]
        for line in lines[1:]:
            if line.turn.start < last.turn.end - FORGIVEN:
                pairs.append((last, line))
            last = max(last, line, key=lambda candidate: candidate.turn.end)
    return pairs


def _overlap(first: RttmLine, second: RttmLine) -> str:
    return (
        f"line {second.number}: speaker {second.turn.speaker} of {second.recording} speaks already, by line "
        f"{first.number} ({first.turn.start:.3f} to {first.turn.end:.3f} s); make one turn of the two, or give "
        "-o corpus.merge_turns=true"
    )


def merged(lines: Iterable[RttmLine]) -> list[Turn]:
    """Return turns by start; those of one speaker that touch or overlap become one."""
    done: list[Turn] = []
    last: dict[str, int] = {}
    for turn in sorted(line.turn for line in lines):
        place = last.get(turn.speaker)
        if place is not None and turn.start <= done[place].end:
            done[place] = done[place]._replace(end=max(turn.end, done[place].end))
        else:
            last[turn.speaker] = len(done)
            done.append(turn)
    return done


def split(name: str, source: Path, recordings: Sequence[Recording], chunk_seconds: float) -> Manifest:
    """Return a split whose rows are chunks of recordings, in their order.

    Raises:
        UserError: there is no recording.
    """
    if not recordings:
        raise UserError(f"{source}: no recording is left for {name}. Change -o corpus.speakers, or add recordings.")
    chunks = [chunk for recording in recordings for chunk in _chunks(recording, chunk_seconds)]
    return Manifest(name, tuple(chunks), source)


def _chunks(recording: Recording, chunk_seconds: float) -> Iterator[Utterance]:
    """The chunks of a recording. Each carries all of its turns, in the label `turns`, and its id, in `recording`.

    A last chunk that is too short to be heard is left out: it holds at most two label frames.
    """
    turns = json.dumps([list(turn) for turn in merged(recording.lines)])
    labels = {**recording.labels, "recording": recording.id, "turns": turns}
    count = max(1, math.ceil((recording.seconds - audio.MIN_SECONDS) / chunk_seconds))
    for k in range(count):
        start, end = k * chunk_seconds, min((k + 1) * chunk_seconds, recording.seconds)
        name = recording.id if count == 1 else f"{recording.id}#{k}"
        yield Utterance(name, Clip(recording.path, start, end), " ".join(recording.speakers()), labels, recording.line)


def refuse(path: Path, bad: Sequence[str], advice: str) -> None:
    """Refuse a file some of whose lines are bad.

    Raises:
        UserError: naming them; `advice` ends the message.
    """
    if bad:
        raise UserError(f"{listing(path, bad)}\n{advice}")
