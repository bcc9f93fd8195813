"""Quick probes on dev while an encoder is trained: they show it becoming useful, and may choose what is exported.

The loss goes on falling while features become worse for a task, so that it is no guide to when to stop.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from downstreams import registry
from downstreams.base import TrainedTask
from superb_eval.errors import UserError
from superb_eval.pretraining import recipe
from superb_eval.pretraining.recipe import ProbeSettings
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runtime import atomic_files

BEST = "probe.json"
"""In the folder of a training: the update whose encoder scored best so far, and its figures."""


@dataclass(frozen=True)
class Probes:
    """Probes an encoder by the nano recipes of some tasks; the best one so far is exported where `settings` say so."""

    settings: ProbeSettings
    folder: Path
    """Of the training."""
    data: Path | None
    device: str
    export: Callable[[Path], None]
    """Writes the encoder as it is now to a folder."""
    model: Path
    """Where the best one goes."""
    family: str = "hubert"
    """What opens an exported folder: `hubert@FOLDER`."""

    def watch(self, step: int) -> dict[str, float]:
        """Return each task's figure on dev, and their mean with those turned round of which less is better.

        Raises:
            UserError: a task can't be run on the data, or trains no head.
        """
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".probe-") as place:
            self.export(Path(place) / "model")
            found = {f"{task}_dev": self._dev(task, Path(place)) for task in self.settings.tasks}
        found["probe"] = sum(found[f"{t}_dev"] * sign(t) for t in self.settings.tasks) / len(self.settings.tasks)
        if self.settings.chooses and found["probe"] > self._best(before=step):
            self.export(self.model)
            atomic_files.write_text(self.folder / BEST, json.dumps({"step": step, **found}, indent=1) + "\n")
        return found

    def _dev(self, task: str, place: Path) -> float:
        order = RunConfig(
            upstream=f"{self.family}@{place / 'model'}",
            task=task,
            data=self.data,
            profile="nano",
            overrides=self.settings.overrides,
            out=place / "results",
            device=self.device,
            store=place / "store",
        )
        record, _ = evaluate(order)
        best = [max(r.best_dev * sign(task) for r in fold.rates) * sign(task) for fold in record.training]
        return sum(best) / len(best)

    def _best(self, before: int) -> float:
        """The best score so far; one of a later update is of a run that was killed, and will be found again."""
        path = self.folder / BEST
        kept = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {"step": before}
        return float(kept["probe"]) if kept["step"] < before else float("-inf")


def check(settings: ProbeSettings, named: Mapping[str, Path]) -> Path | None:
    """Return the folder of the probes' corpus (None: the embedded one), before anything is trained.

    Raises:
        UserError: a task trains no head, or the folder is not there.
    """
    for name in settings.tasks:
        if not issubclass(registry.get(name), TrainedTask):
            raise UserError(f"probe.tasks: {name} trains no head. Choose tasks such as ks and pr.")
    return recipe.place(settings.data, named) if settings.data else None


def sign(task: str) -> int:
    """Return 1 where more is better of what chooses the task's checkpoint on dev, else -1."""
    kind = registry.get(task)
    metric = getattr(kind, "criterion", None) or kind.metrics[0]
    return 1 if metric.higher_is_better else -1
