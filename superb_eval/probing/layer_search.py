"""Tests a task without training: each hidden layer searched on dev, the best one tested, on shared features."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from downstreams.base import Prediction, Search
from superb_eval.errors import UserError
from superb_eval.features.dataset import FeatureDataset, Features
from superb_eval.probing.folds import WORK, Outcome
from superb_eval.probing.probe import Split
from superb_eval.probing.probe_state import Best
from superb_eval.runs.config import Fold, PreparedRun
from superb_eval.runtime import atomic_files
from superb_eval.runtime.progress import Progress, Update


@dataclass
class _Progress:
    """Dev figures so far, by way and layer; kept in a file, so that a killed run goes on from there."""

    path: Path
    dev: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def taken_up(cls, path: Path) -> _Progress:
        return cls(path, json.loads(path.read_text(encoding="utf8")) if path.is_file() else {})

    def keep(self, way: str, layer: int, value: float) -> None:
        self.dev.setdefault(way, {})[str(layer)] = value
        atomic_files.write_text(self.path, json.dumps(self.dev))


@dataclass(frozen=True)
class _Searched:
    """What one way to search came to: the layer that dev chose, and that layer's predictions on test."""

    way: str
    layer: int
    rows: list[Prediction]


def search_and_test(setting: PreparedRun, fold: Fold[Search], bank: FeatureDataset, progress: Progress) -> Outcome:
    """Search dev on each hidden layer, and test on the one that did best; so for each of the task's ways to search.

    The first way is the strict one. The historical figure is that of the way that does best on test.

    Raises:
        UserError: the features have no such layer as the recipe names.
    """
    task, count = fold.task, bank.layers
    splits = {
        name: Split(manifest, bank.select([setting.digests[u.clip] for u in manifest]))
        for name, manifest in fold.corpus.splits.items()
    }
    layers, ways = _layers(setting, count), task.ways()
    searched_dev = _Progress.taken_up(setting.folder() / WORK / f"fold{fold.number}-layers.json")
    with progress.step("searching layers", len(ways) * len(layers)) as update:
        _search_dev(setting, fold, splits["dev"], layers, searched_dev, update)
    searched = [_test(setting, fold, splits["test"], way, _best(task, searched_dev.dev[way])) for way in ways]
    strict = searched[0]
    return Outcome(
        fold=fold.number,
        rates=(),
        chosen=None,
        rows=strict.rows,
        historical=_best_on_test(task, searched).rows if len(searched) > 1 else [],
        layer_weights=[float(layer == strict.layer) for layer in range(count)],
        parameters=0,
        tuned=_tuned(task, searched_dev, searched),
        skipped=tuple(text for split in splits.values() for text in _remarks(task, split)),
    )


def _layers(setting: PreparedRun, count: int) -> list[int]:
    """The layers to search, 0 nearest the input: all, or the one that the recipe names."""
    chosen = setting.recipe.features.layer
    if chosen is None:
        return list(range(count))
    layer = -1 if chosen == "last" else chosen
    if not -count <= layer < count:
        raise UserError(f"features.layer: {setting.order.upstream} has no layer {layer} of {count}.")
    return [layer % count]


def _search_dev(
    setting: PreparedRun, fold: Fold[Search], dev: Split, layers: list[int], searched_dev: _Progress, update: Update
) -> None:
    task, ways = fold.task, fold.task.ways()
    for done, (layer, way) in enumerate(((layer, way) for layer in layers for way in ways), start=1):
        if str(layer) not in searched_dev.dev.get(way, {}):
            rows = task.search(dev.manifest, _of_layer(dev.features, layer), way, setting.order.device)
            searched_dev.keep(way, layer, task.score(rows)[0].value)
        metric = task.metrics[0].heading
        update(done, f"layer {layer}, {way}: dev {metric} {searched_dev.dev[way][str(layer)]:.2f}")


def _of_layer(features: Features, layer: int) -> list[Tensor]:
    """One layer of every utterance: [frames, dim] each."""
    return [row[:, layer].float() for row in features.rows()]


def _best(task: Search, dev: dict[str, float]) -> int:
    """The layer that is best on dev; the first of equals."""
    best = Best()
    for layer in sorted(map(int, dev)):
        if best.beaten_by(dev[str(layer)], task.metrics[0].higher_is_better):
            best = Best(layer, dev[str(layer)])
    return best.step


def _test(setting: PreparedRun, fold: Fold[Search], test: Split, way: str, layer: int) -> _Searched:
    rows = fold.task.search(test.manifest, _of_layer(test.features, layer), way, setting.order.device)
    return _Searched(way, layer, [row._replace(fold=fold.number) for row in rows])


def _best_on_test(task: Search, searched: list[_Searched]) -> _Searched:
    sign = 1 if task.metrics[0].higher_is_better else -1
    return max(searched, key=lambda s: sign * task.score(s.rows)[0].value)


def _tuned(task: Search, searched_dev: _Progress, searched: list[_Searched]) -> dict[str, object]:
    """For the record: the layer, and how every layer did on dev, by way to search."""
    strict = searched[0]
    found: dict[str, object] = {"layer": strict.layer, "way": strict.way, "dev_by_layer": searched_dev.dev}
    if len(searched) > 1:
        best = _best_on_test(task, searched)
        found["historical"] = {"layer": best.layer, "way": best.way, "ways": list(task.ways())}
    return found


def _remarks(task: Search, split: Split) -> list[str]:
    return task.remarks(split.manifest, [len(row) for row in split.features.rows()])
