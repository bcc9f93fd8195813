"""What an importer returns: the rows of a data folder, under the folder's own names of splits and columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from superb_eval.data.manifest import Turn


@dataclass(frozen=True)
class TableAudio:
    """An audio file that lies as bytes in a table (Parquet or Arrow): `row` (from 0) of `column`."""

    table: Path
    column: str
    row: int
    name: str
    """Its file name, whose ending states the format; empty where the table doesn't state one."""


@dataclass(frozen=True)
class SourceRow:
    """One utterance of a data folder, or one recording where it has turns.

    `start` and `end` are in seconds (`end` None: to the end of the file). `speaker` is empty where it isn't stated.
    `labels` are all other columns as text, by the source's own names; Kaldi's `text` is `text`. `location` names the
    row in messages, such as `train/wav.scp, line 3`.
    """

    id: str
    audio: Path | TableAudio
    location: str
    start: float = 0.0
    end: float | None = None
    speaker: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class SourceCorpus:
    """What a data folder holds.

    `kind` names its format in messages, such as "Kaldi data folder". `splits` are its rows by its own names of splits,
    in its order; one entry named "" where it is undivided. `notes` are sentences on what was left out or decided.
    """

    kind: str
    root: Path
    splits: Mapping[str, tuple[SourceRow, ...]]
    notes: tuple[str, ...] = ()

    def columns(self) -> list[str]:
        """Return the names of all label columns, in order of first appearance."""
        return list(dict.fromkeys(name for rows in self.splits.values() for row in rows for name in row.labels))
