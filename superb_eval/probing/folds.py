"""Trains and tests the heads of one fold: one for each learning rate, the best on dev tested, on shared features."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from downstreams.base import Prediction, Task
from superb_eval.errors import UserError
from superb_eval.features.dataset import FeatureDataset, Features
from superb_eval.features.featurizer import Featurizer
from superb_eval.probing import lockstep
from superb_eval.probing.probe import Probe, Split, decoded, load_weights
from superb_eval.probing.probe_state import BEST, BEST_ON_TEST, ProbeState, TrainingState, best
from superb_eval.probing.training import Training
from superb_eval.runs.config import Fold, PreparedRun
from superb_eval.runtime import atomic_files, threads
from superb_eval.runtime.progress import Progress

WORK = "training"
"""In a run's folder: the state of its trainings; removed once the record is written."""

READERS = 4
"""Threads at most that read, or compute, the frames of batches ahead."""

LARGE, LARGE_THREADS = 5_000_000, 4
"""Heads of as many weights train on as many threads; smaller ones gain nothing by a second."""


def weights_name(fold: int) -> str:
    """Return the file in a run's folder that holds the tested featurizer and head of a fold."""
    return f"probe-{fold}.safetensors"


@dataclass(frozen=True)
class Rate:
    """What training with one learning rate came to."""

    lr: float
    state: TrainingState


@dataclass(frozen=True)
class Outcome:
    """What one fold came to. `rows` are the predictions on test; `historical` those of the published procedure.

    A search (`superb_eval.probing.layer_search`) has no `rates`. `skipped` names what was left out.
    """

    fold: int
    rates: tuple[Rate, ...]
    chosen: Rate | None
    rows: list[Prediction]
    historical: list[Prediction]
    layer_weights: list[float]
    parameters: int
    tuned: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


def train_and_test(
    settings: Sequence[PreparedRun], fold: Fold[Task], bank: FeatureDataset, progress: Progress
) -> list[Outcome]:
    """Train a head for each learning rate, choose one on dev, and test it; so for each setting.

    Several settings differ in their seeds alone, and share the order of their utterances.

    Raises:
        UserError: see `lockstep.run`; or the features have no such layer.
    """
    setting = settings[0]
    splits = {
        name: Split(manifest, bank.select([setting.digests[u.clip] for u in manifest]))
        for name, manifest in fold.corpus.splits.items()
    }
    readers = min(READERS, torch.get_num_threads()) if setting.upstream.reentrant else 1
    trainings = [_training(setting, fold, splits) for setting in settings]
    with threads.at_most(_threads(trainings[0].members[0].probe)), threads.without_denormals():
        with progress.step(_stage(settings, fold), setting.train.steps) as update:
            lockstep.run(trainings, readers, update)
        return _test(settings, fold, splits, [training.members for training in trainings])


def _training(setting: PreparedRun, fold: Fold[Task], splits: dict[str, Split]) -> Training:
    place = setting.folder() / WORK / f"fold{fold.number}"
    team = [
        ProbeState(lr, new_probe(setting, fold, splits["train"].features), place / f"lr{lr:g}")
        for lr in setting.train.rates()
    ]
    return Training(team, fold.task, splits, setting.train, seed=setting.order.seed, folder=place)


def _stage(settings: Sequence[PreparedRun], fold: Fold[Task]) -> str:
    """What the training is called beside its bar."""
    first = settings[0]
    rates = first.train.rates()
    parts = [f"fold {fold.number}"] if len(first.folds) > 1 else []
    parts += [f"{len(settings)} seeds"] if len(settings) > 1 else []
    return ", ".join(["training", *parts, f"lr {rates[0]:g}" if len(rates) == 1 else f"{len(rates)} rates"])


def _threads(probe: Probe) -> int:
    """How many threads a head trains on. It depends on the head alone: another number rounds otherwise, and no figure
    may depend on how many cells share a machine."""
    return 1 if sum(p.numel() for p in probe.parameters()) < LARGE else LARGE_THREADS


def new_probe(setting: PreparedRun, fold: Fold[Task], features: Features) -> Probe:
    """Return an untrained probe; the run's seed decides its weights."""
    torch.manual_seed(setting.order.seed)
    layer = setting.recipe.features.layer
    try:
        featurizer = Featurizer(features.bank.layers, -1 if layer == "last" else layer)
    except IndexError as error:
        raise UserError(f"features.layer: {setting.order.upstream} has no {error}.") from error
    return Probe(featurizer, fold.task.head(features.bank.dim)).to(setting.order.device)


def _test(
    settings: Sequence[PreparedRun], fold: Fold[Task], splits: dict[str, Split], teams: Sequence[Sequence[ProbeState]]
) -> list[Outcome]:
    """Test the rate of each team that dev chose; all hear dev and test in one pass each."""
    task, test = fold.task, splits["test"]
    chosen = [best(team, task) for team in teams]
    probes = [new_probe(setting, fold, test.features) for setting in settings]

    def answers(kept: str, split: str) -> list[list[Any]]:
        for member, probe in zip(chosen, probes, strict=True):
            load_weights(member.folder / kept, probe)
        return decoded(probes, task, splits[split].features)

    # Before anything is tuned.
    on_test = [task.rows(test.manifest, own) for own in answers(BEST_ON_TEST, "test")] if task.best_on_test else []
    on_dev, found = answers(BEST, "dev"), answers(BEST, "test")
    outcomes = []
    for k, (setting, team) in enumerate(zip(settings, teams, strict=True)):
        tuned = task.tune(splits["dev"].manifest, on_dev[k])
        historical = on_test[k] if on_test else task.historical(test.manifest, found[k])
        _keep(chosen[k].folder / BEST, setting.folder() / weights_name(fold.number))
        outcomes.append(
            Outcome(
                fold=fold.number,
                rates=tuple(Rate(member.lr, member.state) for member in team),
                chosen=Rate(chosen[k].lr, chosen[k].state),
                rows=_of_fold(task.rows(test.manifest, found[k]), fold),
                historical=_of_fold(historical, fold),
                layer_weights=probes[k].featurizer.layer_weights().tolist(),
                parameters=sum(p.numel() for p in probes[k].parameters()),
                tuned=tuned,
            )
        )
    return outcomes


def _keep(weights: Path, path: Path) -> None:
    atomic_files.write(path, lambda temporary: shutil.copyfile(weights, temporary))


def _of_fold(rows: list[Prediction], fold: Fold[Task]) -> list[Prediction]:
    return [row._replace(fold=fold.number) for row in rows]
