"""Runs a task on an upstream, with one seed or several, from corpus to record."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

from downstreams.base import Prediction, TrainedTask
from downstreams.batching.sampling import batches_per_epoch
from superb_eval.data import audio
from superb_eval.errors import UserError
from superb_eval.features.dataset import FeatureDataset
from superb_eval.features.extract import Extraction
from superb_eval.features.load_or_extract import FeatureSource, count_stored, load_or_extract
from superb_eval.features.store import Store
from superb_eval.probing.config import ProbeConfig
from superb_eval.probing.folds import WORK, FoldResult, train_and_test
from superb_eval.probing.layer_search import search_and_test
from superb_eval.results import code_versions
from superb_eval.results import record as records
from superb_eval.results.record import RunRecord
from superb_eval.results.stats import scoring
from superb_eval.results.upstream_address import resolve_address
from superb_eval.runs.build_record import StepTimer, build_record
from superb_eval.runs.config import PreparedRun, RunConfig, prepare
from superb_eval.runs.run_log import LoggingProgress
from superb_eval.runs.run_loggers import RunLoggers
from superb_eval.runtime import atomic_files, locks, loggers, memory, outside_files
from superb_eval.runtime.progress import NoProgress, Progress


def evaluate(config: RunConfig, progress: Progress | None = None) -> tuple[RunRecord, Path]:
    """Run a task on an upstream, resume the interrupted run, or return the finished one: its record and its folder.

    Raises:
        UserError: something that the user can fix; what was finished is kept.
    """
    (result,) = evaluate_seeds(config, [config.seed], progress)
    return result


def evaluate_seeds(
    config: RunConfig, seeds: Sequence[int], progress: Progress | None = None
) -> list[tuple[RunRecord, Path]]:
    """Do what `evaluate` does for each seed.

    Where the recipe gives all seeds one `train.order_seed`, they train together and share each pass of the upstream,
    with results identical to those of each seed alone.

    Raises:
        UserError: something that the user can fix; what was finished is kept.
    """
    progress = LoggingProgress(progress or NoProgress())
    names = loggers.choose(config.loggers)
    config = replace(config, upstream=resolve_address(config.upstream, config.out), loggers=names)
    if config.fresh:
        audio.forget_digests()
    seeds = list(dict.fromkeys(seeds))
    timer = StepTimer(len(seeds))
    with timer.step("preparation"):
        first = prepare(config, progress)
        for text in [*first.corpus.notes, *first.leaks]:
            progress.log(f"{first.corpus.name}: {text}")
        runs = [first.with_seed(seed) for seed in seeds]
    earlier = {} if config.fresh else _finished_earlier(runs, progress)
    present = [run for run in runs if run.config.seed not in earlier]
    with ExitStack() as locks:
        for run in present:
            locks.enter_context(_lock(run.folder()))
            if config.fresh:
                _clear(run.folder())
        missing = [run for run in present if not _is_finished(run.folder(), progress)]
        for run in missing:
            _check_entries(run.folder())
        for group in _training_groups(missing):
            with progress.written_to({run.folder(): run.config.command() for run in group}):
                _run(group, timer.shared_by(len(group)), progress)
        return [
            _result(earlier.get(run.config.seed, run.folder()), finished_before=run not in missing, progress=progress)
            for run in runs
        ]


def _finished_earlier(runs: Sequence[PreparedRun], progress: Progress) -> dict[int, Path]:
    """Return, by seed, the folders of runs that finished under an earlier fingerprint of the upstream."""
    folders: dict[int, Path] = {}
    for run in runs:
        if (run.folder() / records.NAME).is_file():
            continue
        folder = next((folder for folder in run.earlier_folders() if _is_finished(folder, progress)), None)
        if folder is not None:
            folders[run.config.seed] = folder
    return folders


def _training_groups(runs: Sequence[PreparedRun]) -> list[list[PreparedRun]]:
    """Group runs that differ in their seeds where they can train together."""
    train = runs[0].recipe.train if runs else None
    if train is not None and train.order_seed is not None:
        return [list(runs)]
    return [[run] for run in runs]


def _result(folder: Path, finished_before: bool, progress: Progress) -> tuple[RunRecord, Path]:
    record = records.read(folder / records.NAME)
    if finished_before:
        progress.log(f"done before: {folder / records.NAME} (--fresh runs it again)")
    if finished_before and code_versions.is_outdated(record.code, record.task):
        progress.log(
            f"warning: {record.upstream.address} {record.task}: computed by an earlier version than "
            f"{code_versions.versions(record.task)}, whose figures differ. --fresh runs it again."
        )
    # Checkpoints are no longer needed, and as large as three copies of the head.
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return record, folder


def _is_finished(folder: Path, progress: Progress) -> bool:
    """Return whether a folder holds a record; a damaged one is reported, and its run repeated."""
    path = folder / records.NAME
    if not path.is_file():
        return False
    try:
        outside_files.read_json(path)
    except UserError:
        progress.log(f"{path}: damaged; the run is repeated")
        return False
    return True


def _lock(folder: Path) -> AbstractContextManager[None]:
    """Return the lock of a run's folder.

    Raises:
        UserError: on entering: another process has locked it, or see `locks.hold`.
    """
    held = f"{folder}: another process computes this run. Wait for it, or choose another --out."
    return locks.hold_alone(folder / ".lock", held)


def _check_entries(folder: Path) -> None:
    """Refuse a run's folder whose files lead elsewhere: what is written to them would be written there.

    Raises:
        UserError: an entry is a link, a pipe or a device.
    """
    for path in folder.iterdir():
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: is a link, a pipe or a device in the folder of an unfinished run. Remove it.")


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _run(runs: Sequence[PreparedRun], timer: StepTimer, progress: LoggingProgress) -> None:
    """Compute runs that differ in their seeds, together, and write the record of each."""
    first, device = runs[0], runs[0].config.device
    with ExitStack() as stack:
        opened = [stack.enter_context(RunLoggers(run)) for run in runs]
        measured = memory.reset_peak(device)
        with timer.step("features"):
            dataset = load_features(first, progress)
        with timer.step("training and test"):
            configs = [replace(run.probe_config(), log=each.log) for run, each in zip(runs, opened, strict=True)]
            by_fold = _probe(first, configs, dataset, progress)
        timer.peak_memory = memory.peak_since_reset(device) if measured else None
        for run, each, results in zip(runs, opened, zip(*by_fold, strict=True), strict=True):
            record = _record(run, dataset, results, timer.shared_by(1))
            each.log_results(record.metrics, run.recipe.train.steps if run.recipe.train else 0)
            progress.write("\n".join([_figures(record), *(f"warning: {text}" for text in record.warnings)]))
            records.write(record, run.folder())


def _figures(record: RunRecord) -> str:
    figures = (f"{m.heading} {m.value:.2f} {m.unit} ({m.protocol})" for m in record.metrics)
    return f"{record.task} seed {record.seed}: {', '.join(figures)}"


def _probe(
    run: PreparedRun, configs: Sequence[ProbeConfig], dataset: FeatureDataset, progress: Progress
) -> list[list[FoldResult]]:
    """Return the results of the runs of these `configs`, which differ in their seeds, on each fold: [folds][runs]."""
    folds, settings = run.folds, run.recipe.train
    if settings is None:  # a task without training: `_training_groups` gives one run
        return [[search_and_test(configs[0], fold, dataset, progress)] for fold in folds]
    return [train_and_test(configs, settings, fold, dataset, progress) for fold in folds]


def load_features(run: PreparedRun, progress: Progress) -> FeatureDataset:
    """Return the features that a run's head is trained on, from the store or by one pass of the upstream.

    Raises:
        UserError: see `load_or_extract`.
    """
    settings = run.recipe.features
    extraction = Extraction.of(settings, settings.pooled and run.task_type.pooled)
    source = FeatureSource(run.upstream, run.fingerprint, extraction, run.config.device)
    store = Store(run.config.store, run.config.store_gb)
    clip_by_digest = {digest: clip for clip, digest in run.digests.items()}
    with progress.step("features", len(clip_by_digest), count_stored(source, clip_by_digest, store)) as update:
        dataset = load_or_extract(source, clip_by_digest, store, update, _passes(run))
    stored = len(dataset.places) - dataset.extracted
    live = f", {len(dataset.unstored)} computed in every batch: the store has no room" if dataset.unstored else ""
    progress.log(f"features: {dataset.extracted} utterances extracted, {stored} from the store {store.folder}{live}")
    return dataset


def _passes(run: PreparedRun) -> float | None:
    """Passes of training over each utterance; None for a task without training, which needs all at once."""
    train, kind = run.recipe.train, run.task_type
    if train is None or not issubclass(kind, TrainedTask):
        return None
    sizes = [len(fold.corpus.splits["train"]) for fold in run.folds]
    batches = [batches_per_epoch(size, kind.utterances_per_batch(train.batch_size), kind.drop_last) for size in sizes]
    drawn = sum(size / count for size, count in zip(sizes, batches, strict=True))
    return train.steps * train.accumulate * drawn / sum(sizes)


def _record(run: PreparedRun, dataset: FeatureDataset, results: Sequence[FoldResult], timer: StepTimer) -> RunRecord:
    """Score a run's predictions, write them, and return its record."""
    folder = run.folder()
    strict = [row for result in results for row in result.rows]
    historical = [row for result in results for row in result.historical]
    with timer.step("scoring"):
        _write_predictions(folder / records.PREDICTIONS, strict)
        if results[0].historical:
            _write_predictions(folder / records.HISTORICAL, historical)
        if run.recipe.train is not None:
            labels = {fold.number: fold.task.labels for fold in run.folds}
            atomic_files.write_text(folder / records.LABELS, json.dumps(labels, ensure_ascii=False) + "\n")
        task = run.folds[0].task
        metrics = scoring.metrics(task, strict, "strict")
        metrics += scoring.metrics(task, historical, "historical") if historical else []
    return build_record(run, dataset, results, metrics, timer)


def _write_predictions(path: Path, rows: Sequence[Prediction]) -> None:
    """Write a predictions file: CSV with id, truth, answer and fold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Prediction._fields)
    writer.writerows(rows)
    atomic_files.write_text(path, text.getvalue())
