"""ASV from a folder of manifests: utterances in CSV, with lists of trials for dev and test.

`<root>/asv/{train,dev,test}.csv` (or `.parquet`), `dev_trials.csv` and `trials.csv` (test's) with the columns enroll,
test and target (1: one speaker, 0: two); enroll and test are paths, or ids, of utterances of that split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from downstreams.asv import VerificationCorpus
from superb_eval.data import audio, read_manifest, table_io
from superb_eval.data.manifest import Corpus, Manifest, Trial, Utterance, bad_rows_message
from superb_eval.errors import UserError, listed, near_miss

TASK = "asv"
TRIAL_FILES = {"dev": "dev_trials", "test": "trials"}
COLUMNS = ("enroll", "test", "target")


def read(root: Path, settings: VerificationCorpus) -> Corpus:
    """Return the splits, dev and test with their trials.

    Raises:
        UserError: rows or trials are bad; all are named.
    """
    corpus = read_manifest.read(root, TASK, (), allow_links=settings.allow_links)
    splits = {
        name: _with_trials(root, split) if name in TRIAL_FILES else split for name, split in corpus.splits.items()
    }
    splits["train"], notes = drop_short_utterances(splits["train"], settings)
    return replace(corpus, splits=splits, notes=notes)


def drop_short_utterances(train: Manifest, settings: VerificationCorpus) -> tuple[Manifest, tuple[str, ...]]:
    """Drop training utterances of at most `settings.min_seconds`; return the rest, and a note of how many were dropped.

    With `settings.trim_silence` durations are those after trimming, for which every file is decoded.

    Raises:
        UserError: none is left, or a file can't be read.
    """
    if not settings.min_seconds:
        return train, ()
    durations = zip(train, _durations(train, settings), strict=True)
    remaining = tuple(utterance for utterance, seconds in durations if seconds > settings.min_seconds)
    if not remaining:
        raise UserError(
            f"{train.source}: no utterance of train lasts {settings.min_seconds} s. Lower corpus.min_seconds."
        )
    note = f"{len(train) - len(remaining)} of {len(train)} training utterances left out: not longer than"
    return replace(train, utterances=remaining), (f"{note} {settings.min_seconds:g} s",)


def _durations(train: Manifest, settings: VerificationCorpus) -> Iterator[float]:
    from concurrent.futures import ThreadPoolExecutor

    def duration(utterance: Utterance) -> float:
        if not settings.trim_silence:
            return audio.seconds(utterance.clip)
        return audio.seconds_after_trimming(replace(utterance.clip, gain_db=settings.gain_db, trim_silence=True))

    # Decoding releases Python's lock, so threads share the work.
    with ThreadPoolExecutor() as pool:
        yield from pool.map(duration, train)


def _with_trials(root: Path, split: Manifest) -> Manifest:
    folder = split.source.parent
    paths = [folder / f"{TRIAL_FILES[split.split]}{suffix}" for suffix in (".csv", ".parquet")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise UserError(f"{paths[0]}: no such file; it lists the trials of {split.split}: {', '.join(COLUMNS)}.")
    table = table_io.read(path)
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        hint = "".join(near_miss(column, table.columns) for column in missing)
        raise UserError(f"{path}: missing column(s) {', '.join(missing)} (found: {listed(table.columns)}).{hint}")
    utterances = {name: u for u in split for name in (u.clip.path.relative_to(root).as_posix(), u.id)}
    trials, bad = [], []
    for number, cells in table.rows():
        row = dict(zip(table.columns, cells, strict=False))
        wrong = _problems(row, utterances, split)
        bad += [f"{table_io.row_unit(path)} {number}: {'; '.join(wrong)}"] if wrong else []
        trials += (
            [] if wrong else [Trial(utterances[row["enroll"]].id, utterances[row["test"]].id, row["target"] == "1")]
        )
    if bad:
        raise UserError(bad_rows_message(path, bad))
    return replace(split, trials=tuple(trials))


def _problems(row: Mapping[str, str], utterances: Mapping[str, Utterance], split: Manifest) -> list[str]:
    names = [row.get(side, "") for side in ("enroll", "test")]
    wrong = [f"{split.source.name} has no utterance '{name}'" for name in names if name not in utterances]
    target = row.get("target", "")
    if target not in ("0", "1"):
        return [*wrong, f"target '{target}' must be 1 (one speaker) or 0 (two)"]
    if wrong:
        return wrong
    first, second = (utterances[name].speaker for name in names)
    if (first == second) != (target == "1"):
        return [f"target is {target}, but the speakers are '{first}' and '{second}'"]
    return []
