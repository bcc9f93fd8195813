"""Quick probes on dev during pre-training: they show the encoder's usefulness, and may choose what is exported.

The loss keeps falling while features become worse for a task, so it can't choose the checkpoint.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from downstreams import registry
from downstreams.base import TrainedTask
from superb_eval.errors import UserError
from superb_eval.pretraining.recipe import ProbeSettings
from superb_eval.pretraining.sources import SourcePaths, source_path
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runtime import atomic_files, outside_files

BEST = "probe.json"
"""In the folder of a training: the update whose encoder has the best score so far, and its metrics."""


@dataclass(frozen=True)
class Probes:
    """Probes an encoder by the nano recipes of some tasks; exports the best one so far where `settings` ask for it."""

    settings: ProbeSettings
    folder: Path
    """Of the training."""
    data: Path | None
    device: str
    export: Callable[[Path], None]
    """Writes the current encoder to a folder."""
    model: Path
    """Folder of the best encoder."""
    family: str = "hubert"
    """The upstream that loads an exported folder: `hubert@FOLDER`."""

    def evaluate(self, step: int) -> dict[str, float]:
        """Return each task's metric on dev, and in `probe` their mean, with those negated of which less is better.

        Raises:
            UserError: a task can't be run on the data, or trains no head.
        """
        tasks = self.settings.tasks
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".probe-") as temporary:
            self.export(Path(temporary) / "model")
            metrics = {f"{task}_dev": self._dev_metric(task, Path(temporary)) for task in tasks}
        metrics["probe"] = sum(metrics[f"{task}_dev"] * metric_sign(task) for task in tasks) / len(tasks)
        if self.settings.chooses and metrics["probe"] > self._best_score(before=step):
            self.export(self.model)
            atomic_files.write_text(self.folder / BEST, json.dumps({"step": step, **metrics}, indent=1) + "\n")
        return metrics

    def _dev_metric(self, task: str, folder: Path) -> float:
        config = RunConfig(
            upstream=f"{self.family}@{folder / 'model'}",
            task=task,
            data=self.data,
            profile="nano",
            overrides=self.settings.overrides,
            out=folder / "results",
            device=self.device,
            store=folder / "store",
        )
        record, _ = evaluate(config)
        sign = metric_sign(task)
        best = [max(r.best_dev * sign for r in fold.rates if r.diverged_at is None) * sign for fold in record.training]
        return sum(best) / len(best)

    def _best_score(self, before: int) -> float:
        """Return the best score so far; one of a later update is of a killed run, and will be measured again."""
        path = self.folder / BEST
        best = outside_files.read_json(path) if path.is_file() else {"step": before}
        return float(best["probe"]) if best["step"] < before else float("-inf")


def check_settings(settings: ProbeSettings, paths: SourcePaths) -> Path | None:
    """Return the folder of the probes' corpus (None: the embedded one), before the training starts.

    Raises:
        UserError: a task trains no head, or the folder does not exist.
    """
    for name in settings.tasks:
        if not issubclass(registry.get(name), TrainedTask):
            raise UserError(f"probe.tasks: {name} trains no head. Choose tasks such as ks and pr.")
    return source_path(settings.data, paths) if settings.data else None


def metric_sign(task: str) -> int:
    """Return 1 where the metric that selects the task's checkpoint on dev is better when higher, else -1."""
    kind = registry.get(task)
    metric = getattr(kind, "criterion", None) or kind.metrics[0]
    return 1 if metric.higher_is_better else -1
