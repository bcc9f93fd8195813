"""Writes the tables of a new corpus: a manifest for each split, with trials (ASV) or speaker turns (SD) beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from superb_eval.corpora.building.new_row import NewRow
from superb_eval.corpora.synthetic.manifests import to_csv
from superb_eval.corpora.trials import COLUMNS as TRIAL_COLUMNS
from superb_eval.corpora.trials import TRIAL_FILES
from superb_eval.data.manifest import Trial, Turn
from superb_eval.runtime import atomic_files


def write_manifest(path: Path, rows: Sequence[NewRow]) -> None:
    """Write a split's rows; the columns start and end are there where a row has them."""
    cut = any(row.row.start or row.row.end is not None for row in rows)
    labels = list(dict.fromkeys(label for row in rows for label in row.labels))
    times = ("start", "end") if cut else ()
    lines = [
        (
            row.id,
            row.path,
            f"{row.seconds:.3f}",
            row.speaker,
            *((row.row.start, "" if row.row.end is None else row.row.end) if cut else ()),
            *(row.labels.get(label, "") for label in labels),
        )
        for row in rows
    ]
    atomic_files.write_bytes(path, to_csv(("id", "path", "duration_s", "speaker", *times, *labels), lines))


def write_trials(folder: Path, trials: Mapping[str, Sequence[Trial]]) -> None:
    """Write the trials of dev and test by the ids of their utterances."""
    for split, chosen in trials.items():
        lines = [(trial.enroll, trial.test, int(trial.target)) for trial in chosen]
        atomic_files.write_bytes(folder / f"{TRIAL_FILES[split]}.csv", to_csv(TRIAL_COLUMNS, lines))


def write_rttm(path: Path, turns: Mapping[str, Sequence[Turn]]) -> None:
    """Write the turns of recordings, by their ids; speakers' names must have no spaces."""
    lines = [
        f"SPEAKER {recording} 1 {turn.start:.6f} {turn.end - turn.start:.6f} <NA> <NA> {turn.speaker} <NA> <NA>\n"
        for recording, spoken in turns.items()
        for turn in spoken
    ]
    atomic_files.write_text(path, "".join(lines))
