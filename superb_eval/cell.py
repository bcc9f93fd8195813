"""One cell of the table: a recipe, an upstream and a seed, from corpus to record."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from superb_eval import files, threads
from superb_eval.console import Reporter, Silent
from superb_eval.errors import UserError
from superb_eval.features.extract import Extraction
from superb_eval.features.featurizer import Featurizer
from superb_eval.features.gather import Features, gather
from superb_eval.features.store import Store
from superb_eval.order import Order, Setting, prepare
from superb_eval.probe import LAST, Probe, Split, State, Training, answers
from superb_eval.recording import PREDICTIONS, Clock, compose, metrics
from superb_eval.results import record as records
from superb_eval.results.record import RunRecord


def evaluate(order: Order, reporter: Reporter | None = None) -> tuple[RunRecord, Path]:
    """Run one cell, or take up the run that was interrupted, or return the one that is done; and its folder.

    Raises:
        UserError: something that the user can mend; what was finished is kept.
    """
    reporter = reporter or Silent()
    clock = Clock()
    with clock.stage("preparation"):
        setting = prepare(order, reporter)
        folder = setting.folder()
    done = folder / records.NAME
    with _alone(folder):
        if order.fresh:
            _clear(folder)
        if done.is_file():
            reporter.say(f"done before: {done} (--fresh runs it again)")
            return records.read(done), folder
        record = _run(setting, folder, clock, reporter)
        records.write(record, folder)
    (folder / LAST).unlink(missing_ok=True)
    return record, folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder; a second process on the same cell is told so."""
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{folder}: another process is running this cell. Wait for it, or choose another --out."
        ) from None
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


def _run(setting: Setting, folder: Path, clock: Clock, reporter: Reporter) -> RunRecord:
    with clock.stage("features"):
        splits = _features(setting, reporter)
    with clock.stage("training"):
        probe = _probe(setting, splits["train"].features)
        state = _train(setting, probe, splits, folder, reporter)
    with clock.stage("test"):
        test = splits["test"]
        found = answers(probe, setting.task, test.features, range(len(test.manifest)))
        truths = [setting.task.truth(u) for u in test.manifest]
        ids = [u.id for u in test.manifest]
        predictions = _predictions(ids, truths, found)
        files.write_text(folder / PREDICTIONS, predictions)
        scored = metrics(setting.task, truths, found)
    return compose(setting, splits, probe, state, scored, predictions, clock)


def _features(setting: Setting, reporter: Reporter) -> dict[str, Split]:
    chosen = setting.recipe.features
    how = Extraction(
        kind="pooled" if chosen.pooled and setting.task.pooled else "frames",
        key=chosen.key,
        normalize=chosen.normalize,
        batch_seconds=chosen.batch_seconds,
        precision=chosen.precision,
        dtype=chosen.dtype,
    )
    store = Store(setting.order.store, setting.order.store_gb)
    splits = {}
    for split, manifest in setting.corpus.splits.items():
        clips = [u.clip for u in manifest]
        with reporter.stage(f"features, {split}", len(clips)) as update:
            features = gather(
                setting.upstream,
                setting.fingerprint,
                clips,
                setting.digests[split],
                how,
                store,
                setting.order.device,
                update,
            )
        reporter.say(f"features, {split}: {features.extracted} utterances extracted, {features.stored} from the store")
        splits[split] = Split(manifest, features)
    return splits


def _probe(setting: Setting, features: Features) -> Probe:
    torch.manual_seed(setting.order.seed)
    layer = setting.recipe.features.layer
    try:
        featurizer = Featurizer(features.layers, -1 if layer == "last" else layer)
    except IndexError as error:
        raise UserError(f"features.layer: {setting.order.upstream} has no {error}.") from error
    return Probe(featurizer, setting.task.head(features.dim)).to(setting.order.device)


def _train(setting: Setting, probe: Probe, splits: dict[str, Split], folder: Path, reporter: Reporter) -> State:
    training = Training(probe, setting.task, splits, setting.recipe.train, seed=setting.order.seed, folder=folder)
    count = 1 if splits["train"].features.pooled else os.cpu_count() or 1
    stage = reporter.stage(f"training {setting.recipe.task}", setting.recipe.train.steps)
    with threads.at_most(count), stage as update:
        return training.run(setting.order.device, update)


def _predictions(ids: Sequence[str], truths: Sequence[str], found: Sequence[str]) -> str:
    """The predictions file: CSV with id, truth and answer."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "truth", "answer"])
    writer.writerows(zip(ids, truths, found, strict=True))
    return text.getvalue()
