"""Trains and tests the heads of one fold: one for each learning rate, the best on dev tested, on shared features."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from downstreams.base import Row, Task
from superb_eval import files, threads
from superb_eval.console import Reporter
from superb_eval.errors import UserError
from superb_eval.features.featurizer import Featurizer
from superb_eval.features.gather import Bank, Features
from superb_eval.order import Fold, Setting
from superb_eval.probe import Probe, Split, decoded, load_weights
from superb_eval.training import BEST, BEST_ON_TEST, State, Training, chooses

WORK = "training"
"""In a run's folder: the state of its trainings; removed once the record is written."""

LABELS = "labels.json"
"""In a run's folder: what the outputs of each fold's head mean (`Task.learn`)."""


def weights_name(fold: int) -> str:
    """Return the file in a run's folder that holds the tested featurizer and head of a fold."""
    return f"probe-{fold}.safetensors"


@dataclass(frozen=True)
class Rate:
    """What training with one learning rate came to."""

    lr: float
    state: State


@dataclass(frozen=True)
class Outcome:
    """What one fold came to. `rows` are the predictions on test; `historical` those of the published procedure.

    A search (`superb_eval.searching`) has no `rates`. `skipped` names what was left out.
    """

    fold: int
    rates: tuple[Rate, ...]
    chosen: Rate | None
    rows: list[Row]
    historical: list[Row]
    layer_weights: list[float]
    parameters: int
    tuned: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


def train_and_test(setting: Setting, fold: Fold[Task], bank: Bank, folder: Path, reporter: Reporter) -> Outcome:
    """Train a head for each learning rate, choose one on dev, and test it.

    Raises:
        UserError: see `Training.run`; or the features have no such layer.
    """
    splits = {
        name: Split(manifest, bank.select([setting.digests[u.clip] for u in manifest]))
        for name, manifest in fold.corpus.splits.items()
    }
    # A head on means over time is too small to share among threads. A recurrent one on frames waits for its slowest
    # thread at each frame, so that a busy neighbour holds it up: it leaves half the cores alone.
    with threads.at_most(1 if bank.pooled else max(1, (os.cpu_count() or 1) // 2)), threads.without_denormals():
        rates = tuple(_train(setting, fold, splits, lr, folder, reporter) for lr in setting.train.rates())
        chosen = _choose(rates, fold)
        return _test(setting, fold, splits, rates, chosen, folder)


def new_probe(setting: Setting, fold: Fold[Task], features: Features) -> Probe:
    """Return an untrained probe; the run's seed decides its weights."""
    torch.manual_seed(setting.order.seed)
    layer = setting.recipe.features.layer
    try:
        featurizer = Featurizer(features.layers, -1 if layer == "last" else layer)
    except IndexError as error:
        raise UserError(f"features.layer: {setting.order.upstream} has no {error}.") from error
    return Probe(featurizer, fold.task.head(features.dim)).to(setting.order.device)


def _train(
    setting: Setting, fold: Fold[Task], splits: dict[str, Split], lr: float, folder: Path, reporter: Reporter
) -> Rate:
    settings = setting.train.model_copy(update={"lr": lr})
    probe = new_probe(setting, fold, splits["train"].features)
    work = _work(folder, fold, lr)
    training = Training(probe, fold.task, splits, settings, seed=setting.order.seed, folder=work)
    several = f", fold {fold.number}" if len(setting.folds) > 1 else ""
    with reporter.stage(f"training{several}, lr {lr:g}", settings.steps) as update:
        return Rate(lr, training.run(setting.order.device, update))


def _work(folder: Path, fold: Fold[Task], lr: float) -> Path:
    return folder / WORK / f"fold{fold.number}-lr{lr:g}"


def _choose(rates: tuple[Rate, ...], fold: Fold[Task]) -> Rate:
    """The rate whose best dev figure is best; the first of equals."""
    chosen = rates[0]
    for rate in rates[1:]:
        if chosen.state.best.beaten_by(_dev(rate), chooses(fold.task).higher_is_better):
            chosen = rate
    return chosen


def _dev(rate: Rate) -> float:
    value = rate.state.best.value
    assert value is not None  # noqa: S101 - training always ends with an evaluation
    return value


def _test(
    setting: Setting, fold: Fold[Task], splits: dict[str, Split], rates: tuple[Rate, ...], chosen: Rate, folder: Path
) -> Outcome:
    work, task, test = _work(folder, fold, chosen.lr), fold.task, splits["test"]
    probe = new_probe(setting, fold, test.features)
    historical: list[Row] = []
    if task.best_on_test:
        load_weights(work / BEST_ON_TEST, probe)
        historical = task.rows(test.manifest, decoded(probe, task, test.features))
    load_weights(work / BEST, probe)
    tuned = task.tune(splits["dev"].manifest, decoded(probe, task, splits["dev"].features))
    found = decoded(probe, task, test.features)
    historical = historical or task.historical(test.manifest, found)
    kept = folder / weights_name(fold.number)
    files.write(kept, lambda temporary: shutil.copyfile(work / BEST, temporary))
    return Outcome(
        fold=fold.number,
        rates=rates,
        chosen=chosen,
        rows=_of_fold(task.rows(test.manifest, found), fold),
        historical=_of_fold(historical, fold),
        layer_weights=probe.featurizer.layer_weights().tolist(),
        parameters=sum(p.numel() for p in probe.parameters()),
        tuned=tuned,
    )


def _of_fold(rows: list[Row], fold: Fold[Task]) -> list[Row]:
    return [row._replace(fold=fold.number) for row in rows]
