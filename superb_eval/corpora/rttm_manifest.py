"""SD from a folder of manifests: recordings in CSV, speaker turns in an RTTM file beside each.

`<root>/sd/{train,dev,test}.csv` (or `.parquet`) with the columns id and path, and `{train,dev,test}.rttm`.
"""

from __future__ import annotations

from pathlib import Path

from downstreams.sd import DiarizationCorpus
from superb_eval.corpora import recordings
from superb_eval.corpora.recordings import Recording
from superb_eval.data import audio, read_manifest, rttm
from superb_eval.data.manifest import Corpus, Manifest, Utterance

TASK = "sd"


def read(root: Path, settings: DiarizationCorpus) -> Corpus:
    """Return the splits in chunks of `settings.chunk_seconds`, with the labels `recording` and `turns`.

    Recordings whose RTTM lines name another number of speakers than `settings.speakers` are left out; a note counts
    them.

    Raises:
        UserError: rows or RTTM lines are bad (all are named), or no recording is left.
    """
    corpus = read_manifest.read(root, TASK, (), speaker=False, allow_links=settings.allow_links)
    notes: list[str] = []
    splits = {name: _split(rows, settings, notes) for name, rows in corpus.splits.items()}
    return Corpus(corpus.name, root, splits, corpus.synthetic, tuple(notes))


def _split(rows: Manifest, settings: DiarizationCorpus, notes: list[str]) -> Manifest:
    with_times = [u for u in rows if u.clip.start or u.clip.end is not None]
    rule = "recordings are read whole, and turns count from their beginning; leave start and end empty"
    recordings.raise_if_bad(
        rows.source, [f"{rows.row_name(u)}: {rule}" for u in with_times], "Or write each segment to a file of its own."
    )
    path = rows.source.with_suffix(".rttm")
    lines, bad = rttm.read_rttm(path)
    ids = {u.id for u in rows}
    bad += [f"line {x.number}: {rows.source.name} has no id '{x.recording}'" for x in lines if x.recording not in ids]
    by_recording = rttm.group_by_recording(lines)
    complete = [_recording(u, by_recording.get(u.id, ())) for u in rows]
    chosen = [recording for recording in complete if len(recording.speakers()) == settings.speakers]
    bad += [problem for recording in chosen for problem in recordings.turn_problems(recording, settings.merge_turns)]
    recordings.raise_if_bad(path, bad, "Fix these lines, or leave their recordings out of both files.")
    notes += recordings.selection_notes(rows.split, complete, chosen)
    return recordings.chunked_split(rows.split, path, chosen, settings.chunk_seconds)


def _recording(utterance: Utterance, lines: tuple[rttm.RttmLine, ...]) -> Recording:
    clip = utterance.clip
    return Recording(utterance.id, clip.path, audio.seconds(clip), lines, utterance.labels, utterance.line)
