"""Quick probes during a training: they show the encoder's usefulness, and may choose what is exported.

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
from superb_eval.corpora import aligned_speech
from superb_eval.errors import UserError
from superb_eval.pretraining import probe_units
from superb_eval.pretraining.probe_settings import UNITS, ProbeSettings
from superb_eval.pretraining.sources import SourcePaths, source_path
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runtime import atomic_files, outside_files
from superb_eval.runtime.progress import Progress

BEST = "probe.json"
"""In the folder of a training: the update whose encoder has the best score so far, and its metrics."""


@dataclass(frozen=True)
class Probes:
    """Probes an encoder by the nano recipes of some tasks, or by discovered units; exports the best one so far where
    `settings` ask for it."""

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
        """Return each task's metric on dev, those of units, and in `probe` the mean score.

        A score is a task's metric, negated where less is better, or PNMI in percent.

        Raises:
            UserError: a task or the upstream can't be run on the data, or a task trains no head.
        """
        metrics: dict[str, float] = {}
        scores = []
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".probe-") as temporary:
            self.export(Path(temporary) / "model")
            for name in self.settings.tasks:
                measured, score = self._probe(name, Path(temporary))
                metrics |= measured
                scores.append(score)
        metrics["probe"] = sum(scores) / len(scores)
        if self.settings.chooses and metrics["probe"] > self._best_score(before=step):
            self.export(self.model)
            atomic_files.write_text(self.folder / BEST, json.dumps({"step": step, **metrics}, indent=1) + "\n")
        return metrics

    def _probe(self, name: str, folder: Path) -> tuple[dict[str, float], float]:
        """Return the metrics of one of the settings' tasks, and its score."""
        if name == UNITS:
            address, store = self._address(folder), folder / "store"
            measured = probe_units.measure(self.settings.units, self.data, address, self.device, store)
            return measured, 100 * measured[probe_units.PNMI]
        metric = self._dev_metric(name, folder)
        return {f"{name}_dev": metric}, metric * metric_sign(name)

    def _address(self, folder: Path) -> str:
        return f"{self.family}@{folder / 'model'}"

    def _dev_metric(self, task: str, folder: Path) -> float:
        config = RunConfig(
            upstream=self._address(folder),
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
        if name != UNITS and not issubclass(registry.get(name), TrainedTask):
            raise UserError(f"probe.tasks: {name} trains no head. Choose tasks such as ks and pr, or {UNITS}.")
    return source_path(settings.data, paths) if settings.data else None


def ensure_corpus(settings: ProbeSettings, data: Path | None, progress: Progress) -> None:
    """Synthesise the embedded speech of a probe by units where it is missing and no folder `data` replaces it.

    Raises:
        UserError: synthesis can't run; the message names the next step.
    """
    if UNITS in settings.tasks and data is None:
        aligned_speech.ensure_embedded(settings.units.size, progress)


def check_corpus(settings: ProbeSettings, data: Path | None) -> None:
    """Check before the training starts that the corpus of the probes, at `data`, has what a probe by units needs.

    Raises:
        UserError: see `probe_units.check_corpus`.
    """
    if UNITS in settings.tasks:
        probe_units.check_corpus(settings.units, data)


def metric_sign(task: str) -> int:
    """Return 1 where the metric that selects the task's checkpoint on dev is better when higher, else -1."""
    kind = registry.get(task)
    metric = getattr(kind, "criterion", None) or kind.metrics[0]
    return 1 if metric.higher_is_better else -1
