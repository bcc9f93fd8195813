"""Makes the turns of recordings such that SD reads them: within their file, and one speaker's never overlapping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from superb_eval.corpora.building.label_rows import LeftOut
from superb_eval.corpora.building.new_row import NewRow
from superb_eval.corpora.recordings import TOLERANCE, Recording, merge_turns, overlaps
from superb_eval.data.manifest import Turn
from superb_eval.data.rttm import RttmLine


def check_recordings(rows: Sequence[NewRow], left_out: LeftOut) -> tuple[list[NewRow], list[str]]:
    """Return the recordings that SD can read, with their turns in order, and sentences on what was changed.

    Overlapping turns of one speaker are merged. Recordings that are cut out of longer files, or with turns after the
    end of their file, are added to `left_out`. `rows` have their duration.
    """
    kept = []
    merged = 0
    for new_row in rows:
        row = new_row.row
        if row.start or row.end is not None:
            left_out.setdefault("cut out of a longer file, while turns count from its beginning", []).append(
                row.location
            )
            continue
        if max(turn.end for turn in row.turns) > new_row.seconds + TOLERANCE:
            left_out.setdefault("with a turn after the end of the audio", []).append(row.location)
            continue
        turns, found = _merged(new_row)
        merged += found
        kept.append(replace(new_row, row=replace(row, turns=tuple(turns))))
    numbers = Counter(len(row.speakers) for row in kept)
    notes = [f"{merged} pair(s) of overlapping turns of one speaker merged"] if merged else []
    if set(numbers) - {2}:
        counts = ", ".join(f"{count} with {number}" for number, count in sorted(numbers.items()))
        notes.append(f"recordings by their speakers: {counts}; a run reads those with 2, or -o corpus.speakers=NUMBER")
    return kept, notes


def _merged(row: NewRow) -> tuple[list[Turn], int]:
    """Return the turns by start, speakers' names without spaces, and how many pairs overlapped."""
    turns = sorted(turn._replace(speaker="_".join(turn.speaker.split())) for turn in row.row.turns)
    lines = tuple(RttmLine(number, row.id, turn) for number, turn in enumerate(turns, start=1))
    found = len(overlaps(Recording(row.id, Path(row.path), row.seconds, lines)))
    return (merge_turns(lines) if found else turns), found
