"""Trains and tests the heads of one fold: one for each learning rate, of which the best on dev is tested."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from downstreams.base import Prediction, TrainedTask
from superb_eval.features.dataset import FeatureDataset
from superb_eval.probing.config import Fold, ProbeConfig
from superb_eval.probing.probe import Probe, Split, decode, load_weights, new_probe, remarks, splits_of
from superb_eval.probing.probe_state import BEST, BEST_ON_TEST, ProbeState, TrainingState, best_on_dev
from superb_eval.probing.training import Training, resume, train
from superb_eval.recipe import TrainSettings
from superb_eval.runtime import atomic_files, devices, threads
from superb_eval.runtime.progress import Progress

WORK = "training"
"""In a run's folder: the checkpoints of its trainings; removed once the record is written."""

READERS = 4
"""Threads at most that read, or compute, the frames of the next batches."""

LARGE_HEAD, LARGE_HEAD_THREADS = 5_000_000, 4
"""Heads of at least so many weights train on so many threads; smaller ones are no faster on two."""


def weights_name(fold: int) -> str:
    """Return the file in a run's folder that holds the tested featurizer and head of a fold."""
    return f"probe-{fold}.safetensors"


@dataclass(frozen=True)
class LearningRateResult:
    """The result of training with one learning rate."""

    lr: float
    state: TrainingState


@dataclass(frozen=True)
class FoldResult:
    """The result of one fold. `rows` are the predictions on test; `historical` those of the published procedure.

    `rates` has the result of each learning rate, `chosen` the one that is best on dev; a layer search
    (`superb_eval.probing.layer_search`) has none. `skipped` names what was left out.
    """

    fold: int
    rates: tuple[LearningRateResult, ...]
    chosen: LearningRateResult | None
    rows: list[Prediction]
    historical: list[Prediction]
    layer_weights: list[float]
    parameters: int
    tuned: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


def train_and_test(
    configs: Sequence[ProbeConfig],
    settings: TrainSettings,
    fold: Fold[TrainedTask],
    dataset: FeatureDataset,
    progress: Progress,
) -> list[FoldResult]:
    """Train a head for each learning rate, choose one on dev, and test it; return one result for each of `configs`.

    Several `configs` differ in their seeds alone, and share the order of their utterances.

    Raises:
        UserError: see `training.train`; or the features have no such layer.
    """
    first = configs[0]
    splits = splits_of(fold.corpus, first, dataset)
    trainings = [_new_training(config, settings, fold, splits) for config in configs]
    readers = min(READERS, torch.get_num_threads()) if first.reentrant else 1
    with (
        threads.limit_threads(_threads(trainings[0].states[0].probe)),
        threads.flush_denormals(),
        devices.tf32_products(settings.precision == "tf32"),
    ):
        title = _title(len(configs), settings, fold)
        with progress.step(title, settings.steps, resume(trainings)) as update:
            train(trainings, readers, update)
        return _test(configs, fold, splits, [training.states for training in trainings])


def _new_training(
    config: ProbeConfig, settings: TrainSettings, fold: Fold[TrainedTask], splits: dict[str, Split]
) -> Training:
    folder = config.folder / WORK / f"fold{fold.number}"
    states = [
        ProbeState(lr, new_probe(config, fold.task, splits["train"].features), folder / f"lr{lr:g}")
        for lr in settings.rates()
    ]

    def log(state: ProbeState, points: Sequence[dict[str, float]]) -> None:
        parts = [f"fold{fold.number}"] if fold.total > 1 else []
        parts += [f"lr{state.lr:g}"] if len(states) > 1 else []
        config.log("/".join(parts), points)

    return Training(states, fold.task, splits, settings, seed=config.seed, folder=folder, log=log)


def _title(seeds: int, settings: TrainSettings, fold: Fold[TrainedTask]) -> str:
    """The name of the training on its progress bar."""
    rates = settings.rates()
    parts = [f"fold {fold.number}"] if fold.total > 1 else []
    parts += [f"{seeds} seeds"] if seeds > 1 else []
    return ", ".join(["training", *parts, f"lr {rates[0]:g}" if len(rates) == 1 else f"{len(rates)} rates"])


def _threads(probe: Probe) -> int:
    """Threads to train a head on. Another number rounds differently, and no figure may depend on how many runs share a
    machine, so the head alone decides."""
    return 1 if sum(p.numel() for p in probe.parameters()) < LARGE_HEAD else LARGE_HEAD_THREADS


def _test(
    configs: Sequence[ProbeConfig],
    fold: Fold[TrainedTask],
    splits: dict[str, Split],
    states_by_seed: Sequence[Sequence[ProbeState]],
) -> list[FoldResult]:
    """Test the learning rate of each seed that is best on dev; all seeds share one pass over dev and one over test."""
    task, test = fold.task, splits["test"]
    chosen = [best_on_dev(states, task) for states in states_by_seed]
    probes = [new_probe(config, task, test.features) for config in configs]

    def decode_with(weights: str, split: str) -> list[list[Any]]:
        for state, probe in zip(chosen, probes, strict=True):
            load_weights(state.folder / weights, probe)
        return decode(probes, task, splits[split].features)

    # Before `tune` changes how rows are made.
    best_on_test = (
        [task.rows(test.manifest, decoded) for decoded in decode_with(BEST_ON_TEST, "test")]
        if task.best_on_test
        else []
    )
    on_dev, on_test = decode_with(BEST, "dev"), decode_with(BEST, "test")
    skipped = remarks(task, splits)
    results = []
    for k, (config, states) in enumerate(zip(configs, states_by_seed, strict=True)):
        tuned = task.tune(splits["dev"].manifest, on_dev[k])
        historical = best_on_test[k] if best_on_test else task.historical(test.manifest, on_test[k])
        _copy(chosen[k].folder / BEST, config.folder / weights_name(fold.number))
        results.append(
            FoldResult(
                fold=fold.number,
                rates=tuple(LearningRateResult(state.lr, state.state) for state in states),
                chosen=LearningRateResult(chosen[k].lr, chosen[k].state),
                rows=_with_fold(task.rows(test.manifest, on_test[k]), fold),
                historical=_with_fold(historical, fold),
                layer_weights=probes[k].featurizer.layer_weights().tolist(),
                parameters=sum(p.numel() for p in probes[k].parameters()),
                tuned=tuned,
                skipped=skipped,
            )
        )
    return results


def _copy(weights: Path, path: Path) -> None:
    atomic_files.write(path, lambda temporary: shutil.copyfile(weights, temporary))


def _with_fold(rows: list[Prediction], fold: Fold[TrainedTask]) -> list[Prediction]:
    return [row._replace(fold=fold.number) for row in rows]
