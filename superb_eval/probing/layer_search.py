"""Tests a task without training: each hidden layer is scored on dev, and the best one on test."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from downstreams.base import Prediction, SearchTask
from superb_eval.errors import UserError
from superb_eval.features.dataset import FeatureDataset, Features
from superb_eval.probing.config import Fold, ProbeConfig
from superb_eval.probing.folds import WORK, FoldResult
from superb_eval.probing.probe import Split, remarks, splits_of
from superb_eval.probing.probe_state import Best
from superb_eval.runtime import atomic_files, outside_files
from superb_eval.runtime.progress import Progress, Update

_BY_WAY = TypeAdapter(dict[str, dict[str, float]])


@dataclass
class _DevScores:
    """Dev scores so far, by way to search and layer; saved in a file, from which an interrupted search resumes."""

    path: Path
    by_way: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def resume(cls, path: Path) -> _DevScores:
        if not path.exists():
            return cls(path)
        try:
            return cls(path, _BY_WAY.validate_json(outside_files.read_bytes(path)))
        except (UserError, ValidationError):
            warnings.warn(f"{path}: damaged; this search starts over", stacklevel=2)
            return cls(path)

    def save(self, way: str, layer: int, value: float) -> None:
        self.by_way.setdefault(way, {})[str(layer)] = value
        atomic_files.write_text(self.path, json.dumps(self.by_way))


@dataclass(frozen=True)
class _SearchResult:
    """The result of one way to search: the layer that is best on dev, and that layer's predictions on test."""

    way: str
    layer: int
    rows: list[Prediction]


def search_and_test(
    config: ProbeConfig, fold: Fold[SearchTask], dataset: FeatureDataset, progress: Progress
) -> FoldResult:
    """Score each hidden layer on dev and test the best one, for each of the task's ways to search.

    The first way is the strict one. The historical figure is that of the way that is best on test.

    Raises:
        UserError: the features have no such layer as the recipe names.
    """
    task, splits = fold.task, splits_of(fold.corpus, config, dataset)
    layers, ways = _layers(config, dataset.layers), task.ways()
    scores = _DevScores.resume(config.folder / WORK / f"fold{fold.number}-layers.json")
    with progress.step("searching layers", len(ways) * len(layers)) as update:
        _search_dev(config, task, splits["dev"], layers, scores, update)
    for way in ways:
        by_layer = scores.by_way[way]
        config.log(way, [{"step": layer, f"dev/{task.metrics[0].key}": by_layer[str(layer)]} for layer in layers])
    results = [_test(config, fold, splits["test"], way, _best_layer(task, scores.by_way[way])) for way in ways]
    strict = results[0]
    return FoldResult(
        fold=fold.number,
        rates=(),
        chosen=None,
        rows=strict.rows,
        historical=_best_on_test(task, results).rows if len(results) > 1 else [],
        layer_weights=[float(layer == strict.layer) for layer in range(dataset.layers)],
        parameters=0,
        tuned=_tuned(task, scores, results),
        skipped=remarks(task, splits),
    )


def _layers(config: ProbeConfig, count: int) -> list[int]:
    """The layers to search, 0 nearest the input: all, or the one that the recipe names."""
    if config.layer is None:
        return list(range(count))
    if not -count <= config.layer < count:
        raise UserError(f"features.layer: {config.upstream} has no layer {config.layer} of {count}.")
    return [config.layer % count]


def _search_dev(
    config: ProbeConfig, task: SearchTask, dev: Split, layers: list[int], scores: _DevScores, update: Update
) -> None:
    pairs = [(layer, way) for layer in layers for way in task.ways()]
    for done, (layer, way) in enumerate(pairs, start=1):
        if str(layer) not in scores.by_way.get(way, {}):
            rows = task.search(dev.manifest, _layer_features(dev.features, layer), way, config.device)
            scores.save(way, layer, task.score(rows)[0].value)
        metric = task.metrics[0].heading
        update(done, f"layer {layer}, {way}: dev {metric} {scores.by_way[way][str(layer)]:.2f}")


def _layer_features(features: Features, layer: int) -> list[Tensor]:
    """One layer of every utterance, as it is stored: [frames, dim] each."""
    return [row[:, layer] for row in features.rows()]


def _best_layer(task: SearchTask, dev: dict[str, float]) -> int:
    """The layer that is best on dev; the first of equals."""
    best = Best()
    for layer in sorted(map(int, dev)):
        if best.is_beaten_by(dev[str(layer)], task.metrics[0].higher_is_better):
            best = Best(layer, dev[str(layer)])
    return best.step


def _test(config: ProbeConfig, fold: Fold[SearchTask], test: Split, way: str, layer: int) -> _SearchResult:
    rows = fold.task.search(test.manifest, _layer_features(test.features, layer), way, config.device)
    return _SearchResult(way, layer, [row._replace(fold=fold.number) for row in rows])


def _best_on_test(task: SearchTask, results: list[_SearchResult]) -> _SearchResult:
    sign = 1 if task.metrics[0].higher_is_better else -1
    return max(results, key=lambda result: sign * task.score(result.rows)[0].value)


def _tuned(task: SearchTask, scores: _DevScores, results: list[_SearchResult]) -> dict[str, object]:
    """For the record: the chosen layer, and the dev score of every layer, by way to search."""
    strict = results[0]
    tuned: dict[str, object] = {"layer": strict.layer, "way": strict.way, "dev_by_layer": scores.by_way}
    if len(results) > 1:
        best = _best_on_test(task, results)
        tuned["historical"] = {"layer": best.layer, "way": best.way, "ways": list(task.ways())}
    return tuned
