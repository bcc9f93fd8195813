"""Data folders of other toolkits, read as they are where nothing is left to decide.

Columns, splits and speakers are found as `superb-eval corpus new` finds them, so that both give the same corpus. What
that command would decide by an option or a seed is refused here, with the command.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from downstreams import registry as tasks
from downstreams.sd import DiarizationCorpus
from superb_eval.corpora import recordings
from superb_eval.corpora.building.choose_splits import choose_splits
from superb_eval.corpora.building.label_rows import LeftOut, TaskNeeds, label_rows
from superb_eval.corpora.building.new_row import DIVIDED, NewRow
from superb_eval.corpora.building.request import CorpusRequest
from superb_eval.corpora.building.split_plan import SplitPlan, plan_splits
from superb_eval.corpora.recordings import TOLERANCE, Recording
from superb_eval.corpora.table_cache import table_files
from superb_eval.data import audio, table_io
from superb_eval.data.audio import Clip
from superb_eval.data.importers import formats
from superb_eval.data.importers.source import SourceCorpus, TableAudio
from superb_eval.data.manifest import Corpus, Manifest, Utterance
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.data.rttm import RttmLine
from superb_eval.errors import UserError
from superb_eval.runtime import outside_files
from superb_eval.runtime.progress import Progress

HUB_NAMES = {"sid": "si"}
"""What SUPERB's sets on the hub call a task, where they don't use its name here."""

_TABLES = (*DIVIDED, "queries", "docs", "pairs", "trials", "dev_trials")
"""Names of tables in a task's folder of manifests."""


def data_folder(task: str, root: Path, settings: CorpusSettings) -> Path | None:
    """Return the data folder of another toolkit that `root` is or holds for a task; None where there is none.

    Manifests come first: a folder of them is none, whatever else lies in it.

    Raises:
        UserError: `root` holds several data sets, and none by the task's name.
    """
    named = root / (settings.folder or task)
    if any((named / f"{name}{ending}").is_file() for name in _TABLES for ending in (".csv", ".parquet")):
        return None
    for folder in dict.fromkeys((named, root / HUB_NAMES.get(task, task))):
        if folder.is_dir() and formats.recognise(folder):
            return folder
    return root if not _holds_manifests(root) and formats.recognise(root) else None


def _holds_manifests(root: Path) -> bool:
    """Return whether `root` has manifests of any task: then its other folders hold their audio."""
    return any({"id", "path"} <= _header(path) for path in root.glob("*/train.csv"))


def _header(path: Path) -> set[str]:
    with outside_files.open_regular(path) as file:
        line = file.readline(table_io.MAX_LINE).decode("utf-8-sig", "replace")
    return {column.strip().strip('"') for column in line.split(",")}


def load(task: str, folder: Path, columns: Sequence[str], settings: CorpusSettings, progress: Progress) -> Corpus:
    """Return the corpus of a task in a data folder; `columns` are the label columns that the task reads.

    Raises:
        UserError: the folder leaves something open (the message names it, and the command that decides it), or what it
            holds is wrong.
    """
    kind = tasks.get(task)
    request = CorpusRequest(task, folder, folder)
    needs = TaskNeeds(kind, columns)
    with _command(request):
        plan = plan_splits(formats.split_names(folder), request)
        _check_plan(plan, needs, request)
    source = formats.read(folder, plan.names, turns=needs.turns)
    with _command(request):
        rows, left_out, notes = label_rows(source, plan, needs, request)
        _check_rows(rows, left_out, plan, request)
        splits, _ = choose_splits(rows, plan, needs, request, left_out)
    files = table_files(source, progress)
    read = f"read as it is, from a {source.kind}"
    corpus_notes = [read, *plan.notes, *notes, *source.notes]
    manifests = {
        name: _recordings(name, source, rows, files, settings, corpus_notes)
        if isinstance(settings, DiarizationCorpus)
        else Manifest(name, tuple(_utterance(row, files, columns) for row in rows), folder)
        for name, rows in splits.items()
    }
    return Corpus(folder.resolve().name, folder, manifests, notes=tuple(corpus_notes))


@contextmanager
def _command(request: CorpusRequest) -> Iterator[None]:
    """Add to what is left open the command that decides it."""
    try:
        yield
    except UserError as error:
        command = f"superb-eval corpus new {request.task} {shlex.quote(str(request.source))} --out DIR"
        raise UserError(f"{str(error).rstrip('.')}. To decide it, make a corpus of the folder: {command}") from error


def _check_plan(plan: SplitPlan, needs: TaskNeeds, request: CorpusRequest) -> None:
    if needs.kind.trials:
        raise UserError(
            f"{request.source}: {needs.kind.title} needs lists of trials, which a data folder doesn't hold."
        )
    missing = [name for name in DIVIDED if name not in plan.parts]
    if plan.parts and missing:
        raise UserError(f"{request.source}: has no split for {' and '.join(missing)} (found: {', '.join(plan.names)}).")


def _check_rows(rows: Sequence[NewRow], left_out: LeftOut, plan: SplitPlan, request: CorpusRequest) -> None:
    if not plan.parts and not any(row.labels.get("fold") for row in rows):
        raise UserError(f"{request.source}: isn't divided into train, dev and test.")
    reasons = [f"{len(places)} row(s) {reason}, such as {places[0]}" for reason, places in left_out.items()]
    if reasons:
        raise UserError(f"{request.source}: has {'; '.join(reasons)}, which would be left out.")


def _clip(row: NewRow, files: Mapping[TableAudio, Path]) -> Clip:
    found = row.row.audio
    path = files[found] if isinstance(found, TableAudio) else found
    return Clip(path, row.row.start, row.row.end)


def _utterance(row: NewRow, files: Mapping[TableAudio, Path], columns: Sequence[str]) -> Utterance:
    # The speaker is a label where a task asks for it, as in manifests.
    labels = {**({"speaker": row.speaker} if "speaker" in columns else {}), **row.labels}
    return Utterance(row.id, _clip(row, files), row.speaker, labels)


def _recordings(
    split: str,
    source: SourceCorpus,
    rows: Sequence[NewRow],
    files: Mapping[TableAudio, Path],
    settings: DiarizationCorpus,
    notes: list[str],
) -> Manifest:
    """Return a split's recordings in chunks, as those of a folder of manifests; sentences are added to `notes`."""
    complete, bad = [], list[str]()
    for row in rows:
        clip = _clip(row, files)
        lines = tuple(RttmLine(number, row.id, turn) for number, turn in enumerate(row.row.turns, start=1))
        complete.append(Recording(row.id, clip.path, audio.seconds(clip), lines, row.labels))
        if clip.start or clip.end is not None:
            bad.append(f"{row.row.location}: is cut out of a longer file, while turns count from its beginning")
    chosen = [recording for recording in complete if len(recording.speakers()) == settings.speakers]
    places = {row.id: row.row.location for row in rows}
    for recording in chosen:
        bad += [f"{places[recording.id]}: {problem}" for problem in _turn_problems(recording, settings.merge_turns)]
    recordings.raise_if_bad(source.root, bad, "Fix these turns, or leave their recordings out.")
    notes += recordings.selection_notes(split, complete, chosen)
    return recordings.chunked_split(split, source.root, chosen, settings.chunk_seconds)


def _turn_problems(recording: Recording, merge: bool) -> Iterator[str]:
    """Yield a sentence for each turn that passes the end of its file or overlaps another of the same speaker."""
    for line in recording.lines:
        if line.turn.end > recording.seconds + TOLERANCE:
            yield (
                f"a turn of {line.turn.speaker} ends at {line.turn.end:.3f} s, but {recording.path.name} lasts "
                f"{recording.seconds:.3f} s"
            )
    for first, second in () if merge else recordings.overlaps(recording):
        yield (
            f"{second.turn.speaker} has a turn from {second.turn.start:.3f} s and another to {first.turn.end:.3f} s: "
            "merge them, or give -o corpus.merge_turns=true"
        )
