"""SD from a folder of manifests: recordings in CSV, who speaks when in an RTTM file beside it.

`<root>/sd/{train,dev,test}.csv` (or `.parquet`) with the columns id and path, and `{train,dev,test}.rttm`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from superb_eval.corpora import recordings
from superb_eval.corpora.recordings import Recording
from superb_eval.data import audio, manifest
from superb_eval.data.manifest import Corpus, Manifest, Utterance
from superb_eval.recipe import CorpusSettings

TASK = "sd"


def read(root: Path, settings: CorpusSettings) -> Corpus:
    """Return the splits in chunks of `settings.chunk_seconds`, with the labels `recording` and `turns`.

    Recordings whose RTTM lines name another number of speakers than `settings.speakers` are left out; how many is said
    in the notes.

    Raises:
        UserError: rows or RTTM lines are bad (all are named), or no recording is left.
    """
    corpus = manifest.read(root, TASK, (), speaker=False, allow_links=settings.allow_links)
    notes: list[str] = []
    splits = {name: _split(rows, settings, notes) for name, rows in corpus.splits.items()}
    return Corpus(corpus.name, root, splits, corpus.synthetic, tuple(notes))


def _split(rows: Manifest, settings: CorpusSettings, notes: list[str]) -> Manifest:
    cut = [u for u in rows if u.clip.start or u.clip.end is not None]
    whole = "recordings are taken whole, and turns count from their beginning; empty start and end"
    recordings.refuse(rows.source, [f"{rows.place(u)}: {whole}" for u in cut], "Or write each stretch to a file.")
    path = rows.source.with_suffix(".rttm")
    lines, bad = recordings.read_rttm(path)
    there = {u.id for u in rows}
    bad += [f"line {x.number}: {rows.source.name} has no id '{x.recording}'" for x in lines if x.recording not in there]
    by_recording = recordings.of_recordings(lines)
    found = [_recording(u, by_recording.get(u.id, ())) for u in rows]
    kept = [recording for recording in found if len(recording.speakers()) == settings.speakers]
    bad += [problem for recording in kept for problem in recordings.problems(recording, settings.merge_turns)]
    recordings.refuse(path, bad, "Mend these lines, or leave their recordings out of both files.")
    notes += _notes(rows.split, found, kept)
    return recordings.split(rows.split, path, kept, settings.chunk_seconds)


def _recording(utterance: Utterance, lines: tuple[recordings.RttmLine, ...]) -> Recording:
    clip = utterance.clip
    return Recording(utterance.id, clip.path, audio.seconds(clip), lines, utterance.labels, utterance.line)


def _notes(split: str, found: Sequence[Recording], kept: Sequence[Recording]) -> list[str]:
    notes = []
    others = sorted(Counter(len(recording.speakers()) for recording in found if recording not in kept).items())
    if others:
        counts = ", ".join(f"{count} with {speakers}" for speakers, count in others)
        notes.append(
            f"{split}: {len(found) - len(kept)} of {len(found)} recordings left out by their speakers ({counts})"
        )
    merged = sum(len(recordings.overlaps(recording)) for recording in kept)
    if merged:
        notes.append(f"{split}: {merged} pair(s) of overlapping turns of one speaker merged")
    return notes
