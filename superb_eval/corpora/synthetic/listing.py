"""The tables of a corpus: rows of clips in CSV, and who speaks when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .files import to_csv
from .rows import Clip

SPLITS = ("train", "dev", "test")
COLUMNS = ("id", "path", "duration_s", "speaker")


def table(clips: Iterable[Clip], columns: Sequence[str] = ()) -> bytes:
    """A manifest; `columns` are the labels that it shows."""
    rows = ((c.row.id, c.path, c.duration_s, c.row.speaker, *(c.labels[column] for column in columns)) for c in clips)
    return to_csv((*COLUMNS, *columns), rows)


def by_split(clips: Sequence[Clip], columns: Sequence[str] = ()) -> dict[str, bytes]:
    """A manifest for each split that the clips were planned for."""
    chosen = {split: [clip for clip in clips if clip.row.split == split] for split in SPLITS}
    return {f"{split}.csv": table(some, columns) for split, some in chosen.items() if some}
