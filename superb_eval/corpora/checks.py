"""Checks of a corpus before training: its content, its problems (they stop a run), and remarks on its figures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from downstreams.base import BaseTask
from superb_eval.corpora import leaks
from superb_eval.corpora.leaks import Shared, first_five
from superb_eval.data import audio, links
from superb_eval.data.audio import SAMPLE_RATE, Clip, Header
from superb_eval.data.manifest import Corpus, Utterance, unseen_labels
from superb_eval.errors import UserError

ProgressCallback = Callable[[int, int], object]
"""Called with the number of clips read and the number of all clips."""


@dataclass(frozen=True)
class SplitReport:
    """The content of one split.

    `expected` is the number of utterances of a complete copy, None where it isn't published. `hours` counts readable
    clips, as cut. `labels` counts the utterances of each label, in alphabetical order.
    """

    utterances: int
    expected: int | None
    hours: float
    speakers: int
    labels: dict[str, int]


@dataclass(frozen=True)
class CorpusReport:
    """The content of a corpus and the results of its checks. `problems` must be fixed before a run; `remarks` needn't.

    `rates` (Hz) and `channels` count clips. `shared_speakers` and `shared_files` are common to two splits.
    """

    name: str
    splits: dict[str, SplitReport]
    rates: dict[int, int]
    channels: dict[int, int]
    shared_speakers: Shared
    shared_files: Shared
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _ClipCheck:
    """The check of one clip: its header or its problem, and a key of its file (path or digest of its bytes)."""

    split: str
    utterance: Utterance
    file: str
    header: Header | None
    problem: str = ""
    silent: bool = False


def check_corpus(
    corpus: Corpus, label_column: str | None, full: bool = False, progress: ProgressCallback | None = None
) -> CorpusReport:
    """Check a corpus that was read: the header of every file, with `full` every sample.

    `label_column` holds the classes that a task predicts; None where they are no closed set. `full` takes about eight
    times as long; it finds damage inside files, NaN samples and digital silence, and compares files by their bytes, so
    that it finds copies under another name too.

    Raises:
        UserError: the corpus has no such column.
    """
    _check_column(corpus, label_column)
    clip_checks = list(_read_all(corpus, full, progress))
    leaked, shared_files = leaks.shared_files((r.split, r.file, r.utterance) for r in clip_checks)
    clip_problems, unseen = _clip_problems(corpus, clip_checks), _unseen(corpus, label_column)
    report = CorpusReport(
        name=corpus.name,
        splits={name: _split(corpus, name, label_column, clip_checks) for name in corpus.splits},
        rates=_counts(r.header.rate for r in clip_checks if r.header),
        channels=_counts(r.header.channels for r in clip_checks if r.header),
        shared_speakers=leaks.shared_speakers(corpus),
        shared_files=shared_files,
        problems=(
            *clip_problems,
            *unseen,
            *_same_segments({} if corpus.shared else leaked),
        ),
        remarks=(),
    )
    silent = [_row_name(corpus, r) for r in clip_checks if r.silent]
    linked = links.describe_links((clip.path for clip in corpus.clips()), corpus.root)
    notes = [*corpus.notes, *([f"{linked}."] if linked else [])]
    return replace(report, remarks=(*notes, *_remarks(report, label_column, silent)))


def row_remarks(task: BaseTask, corpus: Corpus) -> list[str]:
    """Return which rows a task can't train on or recognise whole, at the stride of its setup."""
    if type(task).remarks is BaseTask.remarks:  # most tasks have none, and headers take time to read
        return []
    stride = task.setup.stride
    return [
        text
        for split in corpus.splits.values()
        for text in task.remarks(split, [round(audio.seconds(u.clip) * SAMPLE_RATE) // stride for u in split])
    ]


def describe(report: CorpusReport) -> list[str]:
    """Return a report as lines of text: splits, then labels, then remarks and problems."""
    lines = [report.name]
    for name, split in report.splits.items():
        complete = f" of {split.expected}" if split.expected else ""
        lines.append(
            f"  {name:<6}{split.utterances}{complete} utterances, {split.hours:.2f} h, {split.speakers} speakers"
        )
        if split.labels:
            lines.append("        " + ", ".join(f"{label} {count}" for label, count in split.labels.items()))
    lines += [f"  remark: {remark}" for remark in report.remarks]
    lines += [f"  problem: {problem}" for problem in report.problems]
    return lines


def _check_column(corpus: Corpus, column: str | None) -> None:
    for split in corpus.splits.values():
        for utterance in split if column is not None else ():
            if column not in utterance.labels:
                columns = ", ".join(utterance.labels) or "none"
                raise UserError(f"{split.source}: {split.split} has no label column '{column}' (found: {columns}).")


def _read_all(corpus: Corpus, full: bool, progress: ProgressCallback | None) -> Iterator[_ClipCheck]:
    clips = [(name, utterance) for name, split in corpus.splits.items() for utterance in split]
    # Decoding releases Python's lock, so threads share the work.
    with ThreadPoolExecutor() as pool:
        for done, clip_check in enumerate(pool.map(lambda clip: _read(clip[0], clip[1], full), clips), start=1):
            if progress:
                progress(done, len(clips))
            yield clip_check


def _read(split: str, utterance: Utterance, full: bool) -> _ClipCheck:
    clip = utterance.clip
    file = str(clip.path)
    try:
        header = audio.header(clip)
        silent = full and not audio.read(clip).any()
        file = audio.digest(Clip(clip.path)) if full else os.path.realpath(clip.path)
    except UserError as error:
        return _ClipCheck(split, utterance, file, None, str(error))
    return _ClipCheck(split, utterance, file, header, silent=silent)


def _split(corpus: Corpus, name: str, column: str | None, clip_checks: Iterable[_ClipCheck]) -> SplitReport:
    labels = corpus.splits[name].labels(column) if column else []
    return SplitReport(
        utterances=len(corpus.splits[name]),
        expected=corpus.expected.get(name),
        hours=sum(r.header.seconds for r in clip_checks if r.header and r.split == name) / 3600,
        speakers=len(leaks.speakers(corpus.splits[name])),
        labels=_counts(labels),
    )


def _counts(values: Iterable[Any]) -> dict[Any, int]:
    return dict(sorted(Counter(values).items()))


def _clip_problems(corpus: Corpus, clip_checks: Iterable[_ClipCheck]) -> Iterator[str]:
    for r in clip_checks:
        if r.problem:
            yield f"{_row_name(corpus, r)}: {r.problem}"


def _row_name(corpus: Corpus, checked: _ClipCheck) -> str:
    return f"{checked.split}, {corpus.splits[checked.split].row_name(checked.utterance)}"


def _unseen(corpus: Corpus, column: str | None) -> Iterator[str]:
    train = corpus.splits.get("train")
    if train is None or column is None:
        return
    for name, split in corpus.splits.items():
        if name != "train":
            yield from (f"{name}, {problem}" for problem in unseen_labels(train, split, column))


def _same_segments(shared: Shared) -> Iterator[str]:
    """Yield a problem where test shares audio. What dev shares with train is a remark: some protocols share silence."""
    for (a, b), files in shared.items():
        if "test" in (a, b):
            yield f"{a} and {b} use the same segment of {first_five(files)}: remove it from one of the two."


def _remarks(report: CorpusReport, column: str | None, silent: Sequence[str]) -> Iterator[str]:
    for name, split in report.splits.items():
        if split.expected not in (None, split.utterances):
            count = f"{name} holds {split.utterances} utterances where a complete copy has {split.expected}"
            yield f"{count}: scores on it are not comparable with published ones."
    if column != "speaker":
        for (a, b), names in report.shared_speakers.items():
            yield f"{a} and {b} share the speakers {first_five(names)}: scores on {b} are optimistically biased."
    for (a, b), names in report.shared_files.items():
        yield f"{a} and {b} use the same files: {first_five(names)}."
    yield from _label_remarks(report)
    yield from _audio_remarks(report)
    if silent:
        yield f"digital silence, every sample 0: {first_five(silent)}."


def _label_remarks(report: CorpusReport) -> Iterator[str]:
    trained = report.splits["train"].labels if "train" in report.splits else {}
    for name, split in report.splits.items():
        absent = sorted(set(trained) - set(split.labels))
        if absent and split.labels:
            yield f"{name} has no utterance of {first_five(absent)}."


def _audio_remarks(report: CorpusReport) -> Iterator[str]:
    for rate, clips in report.rates.items():
        if rate != SAMPLE_RATE:
            lost = f"; they hold nothing above {rate // 2} Hz" if rate < SAMPLE_RATE else ""
            yield f"{clips} clip(s) at {rate} Hz are resampled to {SAMPLE_RATE} Hz{lost}."
    mixed = sum(clips for channels, clips in report.channels.items() if channels > 1)
    if mixed:
        yield f"{mixed} clip(s) have several channels, which are averaged."
