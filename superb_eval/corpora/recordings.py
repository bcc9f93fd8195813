"""Recordings with speaker turns: check and merge turns, and cut recordings into chunks."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Manifest, Turn, Utterance, bad_rows_message
from superb_eval.data.rttm import RttmLine
from superb_eval.errors import UserError

TOLERANCE = 0.01
"""Seconds by which turns may overlap or pass the end of their file: RTTM files round their times."""


@dataclass(frozen=True)
class Recording:
    """One recording of a split. `lines` are its turns; `line` is its line in the split's list, 0 without one."""

    id: str
    path: Path
    seconds: float
    lines: tuple[RttmLine, ...]
    labels: dict[str, str] = field(default_factory=dict)
    line: int = 0

    def speakers(self) -> list[str]:
        """Return the speakers in alphabetical order."""
        return sorted({line.turn.speaker for line in self.lines})


def turn_problems(recording: Recording, merge: bool) -> list[str]:
    """Return a sentence for each turn that passes the end of its file or overlaps another of the same speaker.

    With `merge`, overlaps are no problem.
    """
    late = [line for line in recording.lines if line.turn.end > recording.seconds + TOLERANCE]
    problems = [
        f"line {line.number}: the turn ends at {line.turn.end:.3f} s, but {recording.path.name} lasts "
        f"{recording.seconds:.3f} s"
        for line in late
    ]
    return problems if merge else problems + [_overlap_problem(a, b) for a, b in overlaps(recording)]


def overlaps(recording: Recording) -> list[tuple[RttmLine, RttmLine]]:
    """Return the pairs of consecutive turns of one speaker that overlap by more than `TOLERANCE`."""
    pairs = []
    for speaker in recording.speakers():
        lines = sorted((line for line in recording.lines if line.turn.speaker == speaker), key=lambda line: line.turn)
        last = lines[0]
        for line in lines[1:]:
            if line.turn.start < last.turn.end - TOLERANCE:
                pairs.append((last, line))
            last = max(last, line, key=lambda candidate: candidate.turn.end)
    return pairs


def _overlap_problem(first: RttmLine, second: RttmLine) -> str:
    return (
        f"line {second.number}: speaker {second.turn.speaker} of {second.recording} already has a turn in line "
        f"{first.number} ({first.turn.start:.3f} to {first.turn.end:.3f} s); merge the two turns, or give "
        "-o corpus.merge_turns=true"
    )


def merge_turns(lines: Iterable[RttmLine]) -> list[Turn]:
    """Return turns by start; those of one speaker that touch or overlap become one."""
    turns: list[Turn] = []
    last: dict[str, int] = {}
    for turn in sorted(line.turn for line in lines):
        index = last.get(turn.speaker)
        if index is not None and turn.start <= turns[index].end:
            turns[index] = turns[index]._replace(end=max(turn.end, turns[index].end))
        else:
            last[turn.speaker] = len(turns)
            turns.append(turn)
    return turns


def chunked_split(name: str, source: Path, recordings: Sequence[Recording], chunk_seconds: float) -> Manifest:
    """Return a split whose utterances are the chunks of recordings, in their order.

    Raises:
        UserError: there is no recording.
    """
    if not recordings:
        raise UserError(f"{source}: no recording is left for {name}. Change -o corpus.speakers, or add recordings.")
    chunks = [chunk for recording in recordings for chunk in _chunks(recording, chunk_seconds)]
    return Manifest(name, tuple(chunks), source)


def _chunks(recording: Recording, chunk_seconds: float) -> Iterator[Utterance]:
    """Yield the chunks of a recording, each with all of its turns (label `turns`) and its id (label `recording`).

    A last chunk shorter than `audio.MIN_SECONDS` is left out: it holds at most two label frames.
    """
    turns = json.dumps([list(turn) for turn in merge_turns(recording.lines)])
    labels = {**recording.labels, "recording": recording.id, "turns": turns}
    count = max(1, math.ceil((recording.seconds - audio.MIN_SECONDS) / chunk_seconds))
    for k in range(count):
        start, end = k * chunk_seconds, min((k + 1) * chunk_seconds, recording.seconds)
        name = recording.id if count == 1 else f"{recording.id}#{k}"
        yield Utterance(name, Clip(recording.path, start, end), " ".join(recording.speakers()), labels, recording.line)


def selection_notes(split: str, complete: Sequence[Recording], chosen: Sequence[Recording]) -> list[str]:
    """Return sentences on the recordings that were not chosen, and on overlapping turns of one speaker."""
    notes = []
    left_out = sorted(Counter(len(recording.speakers()) for recording in complete if recording not in chosen).items())
    if left_out:
        counts = ", ".join(f"{count} with {speakers}" for speakers, count in left_out)
        notes.append(
            f"{split}: {len(complete) - len(chosen)} of {len(complete)} recordings left out by their speakers "
            f"({counts})"
        )
    merged = sum(len(overlaps(recording)) for recording in chosen)
    if merged:
        notes.append(f"{split}: {merged} pair(s) of overlapping turns of one speaker merged")
    return notes


def raise_if_bad(path: Path, bad: Sequence[str], advice: str) -> None:
    """Refuse a file that has bad lines.

    Raises:
        UserError: there are some; the message names them and ends with `advice`.
    """
    if bad:
        raise UserError(f"{bad_rows_message(path, bad)}\n{advice}")
