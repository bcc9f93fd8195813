"""What an importer returns: the rows of a data folder, under the folder's own names of splits and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from superb_eval.data.manifest import Turn, bad_rows_message
from superb_eval.errors import UserError

MAX_SENTENCE = 400
"""Characters of the sentence on a bad row: a damaged file may be one long line."""


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


def raise_if_bad(root: Path, bad: Sequence[str], advice: str = "") -> None:
    """Refuse a data folder that has bad rows.

    Raises:
        UserError: there are some; the message names them and ends with `advice`.
    """
    if bad:
        short = [text if len(text) <= MAX_SENTENCE else f"{text[:MAX_SENTENCE]}..." for text in bad]
        raise UserError(f"{bad_rows_message(root, short)}\n{advice}".rstrip())
