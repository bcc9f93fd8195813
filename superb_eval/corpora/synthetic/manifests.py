"""The tables of a synthetic corpus as bytes of CSV files: any table, and manifests of clips."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from superb_eval.corpora.synthetic.clips import SynthesisedClip

SPLITS = ("train", "dev", "test")
COLUMNS = ("id", "path", "duration_s", "speaker")


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a table with a header, in UTF-8: the same bytes on every platform."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def manifest_csv(clips: Iterable[SynthesisedClip], labels: Sequence[str] = ()) -> bytes:
    """Return a manifest: `COLUMNS`, then the label columns `labels`."""
    rows = ((c.plan.id, c.path, c.duration_s, c.plan.speaker, *(c.labels[label] for label in labels)) for c in clips)
    return to_csv((*COLUMNS, *labels), rows)


def manifests_by_split(clips: Sequence[SynthesisedClip], labels: Sequence[str] = ()) -> dict[str, bytes]:
    """Return a manifest for each split that has clips, by file name (``train.csv``)."""
    by_split = {split: [clip for clip in clips if clip.plan.split == split] for split in SPLITS}
    return {f"{split}.csv": manifest_csv(chosen, labels) for split, chosen in by_split.items() if chosen}
