"""One cell of the table: a recipe, an upstream and a seed, from corpus to record."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from downstreams.base import Prediction, Search
from superb_eval.data import audio
from superb_eval.errors import UserError
from superb_eval.features.dataset import FeatureDataset
from superb_eval.features.extract import Extraction
from superb_eval.features.load_or_extract import FeatureSource, load_or_extract
from superb_eval.features.store import Store
from superb_eval.probing.folds import WORK, Outcome, train_and_test
from superb_eval.probing.layer_search import search_and_test
from superb_eval.results import record as records
from superb_eval.results.record import RunRecord
from superb_eval.results.stats import scoring
from superb_eval.runs import build_record
from superb_eval.runs.build_record import StageTimer
from superb_eval.runs.config import PreparedRun, RunConfig, prepare
from superb_eval.runtime import atomic_files
from superb_eval.runtime.progress import NoProgress, Progress


def evaluate(order: RunConfig, progress: Progress | None = None) -> tuple[RunRecord, Path]:
    """Run one cell, or take up the run that was interrupted, or return the one that is done; and its folder.

    Raises:
        UserError: something that the user can mend; what was finished is kept.
    """
    (found,) = evaluate_seeds(order, [order.seed], progress)
    return found


def evaluate_seeds(
    order: RunConfig, seeds: Sequence[int], progress: Progress | None = None
) -> list[tuple[RunRecord, Path]]:
    """Do what `evaluate` does for each seed. Where the recipe gives all of them one `train.order_seed`, they train side
    by side and share each pass of the upstream, and each comes to what it comes to alone.

    Raises:
        UserError: something that the user can mend; what was finished is kept.
    """
    progress = progress or NoProgress()
    if order.fresh:
        audio.read_again()
    seeds = list(dict.fromkeys(seeds))
    clock = StageTimer(len(seeds))
    with clock.stage("preparation"):
        first = prepare(order, progress)
        settings = [first.with_seed(seed) for seed in seeds]
    earlier = {} if order.fresh else _done_earlier(settings, progress)
    with ExitStack() as held:
        for setting in settings:
            if setting.order.seed in earlier:
                continue
            held.enter_context(_alone(setting.folder()))
            if order.fresh:
                _clear(setting.folder())
        missing = [
            setting
            for setting in settings
            if setting.order.seed not in earlier and not _whole(setting.folder() / records.NAME, progress)
        ]
        for group in _groups(missing):
            _run(group, clock.among(len(group)), progress)
        return [
            _finished(earlier.get(setting.order.seed, setting.folder()), setting not in missing, progress)
            for setting in settings
        ]


def _done_earlier(settings: Sequence[PreparedRun], progress: Progress) -> dict[int, Path]:
    """Return the folders of runs that were finished when the upstream had another fingerprint, by seed."""
    found: dict[int, Path] = {}
    for setting in settings:
        if (setting.folder() / records.NAME).is_file():
            continue
        folder = next((f for f in setting.earlier_folders() if _whole(f / records.NAME, progress)), None)
        if folder is not None:
            found[setting.order.seed] = folder
    return found


def _groups(settings: Sequence[PreparedRun]) -> list[list[PreparedRun]]:
    """Settings that differ in their seeds, put together where they can train side by side."""
    train = settings[0].recipe.train if settings else None
    if train is not None and train.order_seed is not None:
        return [list(settings)]
    return [[setting] for setting in settings]


def _finished(folder: Path, before: bool, progress: Progress) -> tuple[RunRecord, Path]:
    if before:
        progress.log(f"done before: {folder / records.NAME} (--fresh runs it again)")
    # The state of training is of no use any more, and as large as three copies of the head.
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return records.read(folder / records.NAME), folder


def _whole(path: Path, progress: Progress) -> bool:
    """Say whether there is a record; one that is torn is named, and made anew."""
    if not path.is_file():
        return False
    try:
        json.loads(path.read_bytes())
    except ValueError:
        progress.log(f"{path}: damaged; the cell is run again")
        return False
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder; a second process on the same cell is told so."""
    with atomic_files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        with atomic_files.explained(folder):
            lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder}: another process runs this cell. Wait for it, or choose another --out.") from None
    try:
        yield
    finally:
        lock.release()


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _run(settings: Sequence[PreparedRun], clock: StageTimer, progress: Progress) -> None:
    """Run cells that differ in their seeds side by side; each writes its record in the end."""
    first = settings[0]
    with clock.stage("features"):
        bank = features(first, progress)
    with clock.stage("training and test"):
        if issubclass(first.kind, Search):
            by_fold = [[search_and_test(first, fold, bank, progress)] for fold in first.folds]
        else:
            by_fold = [train_and_test(settings, fold, bank, progress) for fold in first.folds]
    for setting, outcomes in zip(settings, zip(*by_fold, strict=True), strict=True):
        records.write(_record(setting, bank, outcomes, clock.among(1)), setting.folder())


def _record(setting: PreparedRun, bank: FeatureDataset, outcomes: Sequence[Outcome], clock: StageTimer) -> RunRecord:
    """Score a cell's predictions, keep them, and return its record."""
    folder = setting.folder()
    with clock.stage("scoring"):
        _keep(folder, records.PREDICTIONS, [row for outcome in outcomes for row in outcome.rows])
        if outcomes[0].historical:
            _keep(folder, records.HISTORICAL, [row for outcome in outcomes for row in outcome.historical])
        if not issubclass(setting.kind, Search):
            labels = {fold.number: fold.task.labels for fold in setting.folds}
            atomic_files.write_text(folder / records.LABELS, json.dumps(labels, ensure_ascii=False) + "\n")
        metrics = _metrics(setting, outcomes)
    return build_record.build_record(setting, bank, outcomes, metrics, clock)


def features(setting: PreparedRun, progress: Progress) -> FeatureDataset:
    """Return the features that a cell's head sees, from the store or by one pass of the upstream.

    Raises:
        UserError: see `gather`.
    """
    chosen = setting.recipe.features
    how = Extraction(
        kind="pooled" if chosen.pooled and setting.kind.pooled else "frames",
        key=chosen.key,
        normalize=chosen.normalize,
        batch_seconds=chosen.batch_seconds,
        precision=chosen.precision,
        dtype=chosen.dtype,
    )
    source = FeatureSource(setting.upstream, setting.fingerprint, how, setting.order.device)
    store = Store(setting.order.store, setting.order.store_gb)
    clip_of = {digest: clip for clip, digest in setting.digests.items()}
    with progress.step("features", len(clip_of)) as update:
        bank = load_or_extract(source, clip_of, store, update, _passes(setting))
    stored = len(bank.places) - bank.extracted
    live = f", {len(bank.unstored)} computed whenever a batch asks: there is no room" if bank.unstored else ""
    progress.log(f"features: {bank.extracted} utterances extracted, {stored} from the store {store.folder}{live}")
    return bank


def _passes(setting: PreparedRun) -> float | None:
    """How many times training hears an utterance; None for a task without training, which needs all at once."""
    if issubclass(setting.kind, Search):
        return None
    train, heard = setting.train, sum(len(fold.corpus.splits["train"]) for fold in setting.folds)
    return len(setting.folds) * train.steps * train.batch_size * train.accumulate / max(1, heard)


def _metrics(setting: PreparedRun, outcomes: Sequence[Outcome]) -> list[records.MetricRecord]:
    task = setting.folds[0].task
    metrics = scoring.metrics(task, [row for outcome in outcomes for row in outcome.rows], "strict")
    historical = [row for outcome in outcomes for row in outcome.historical]
    return metrics + (scoring.metrics(task, historical, "historical") if historical else [])


def _keep(folder: Path, name: str, rows: Sequence[Prediction]) -> None:
    """Write a predictions file: CSV with id, truth, answer and fold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Prediction._fields)
    writer.writerows(rows)
    atomic_files.write_text(folder / name, text.getvalue())
