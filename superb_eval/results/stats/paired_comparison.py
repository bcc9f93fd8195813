"""Paired comparisons of runs, from their predictions: differences and means over seeds, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from downstreams import registry
from downstreams.base import BaseTask, Prediction
from downstreams.metrics.scores import Score
from superb_eval.errors import UserError
from superb_eval.results.folder import Protocol, Run, RunGroup
from superb_eval.results.stats import intervals, scoring
from superb_eval.results.stats.intervals import Difference, Draws

FEWEST_FOLDS = 3
"""Where a task is cross-validated over that many folds or more, two upstreams are compared fold by fold."""


@dataclass(frozen=True)
class _ScoredRun:
    """A run's predictions and their scores. `test_units`: (id, truth, fold) of each, which paired runs share."""

    task: BaseTask
    predictions: list[Prediction]
    test_units: list[tuple[str, str, int]]
    scores: dict[str, Score]


class PairedComparison:
    """Compares runs on the test units they share; each run's predictions are read and scored once.

    `problems` lists the runs whose predictions can't be scored. `on_scored` is called with the number of runs scored.
    """

    def __init__(self, protocol: Protocol, on_scored: Callable[[int], None] = lambda count: None) -> None:
        self.protocol: Protocol = protocol
        self.problems: list[str] = []
        self._on_scored = on_scored
        self._runs: dict[Path, _ScoredRun | None] = {}
        self._draws: dict[tuple[Path, str], Draws] = {}

    def draws(self, group: RunGroup, key: str) -> Draws | None:
        """Return a metric's mean over seeds on resamples, or None where predictions are missing."""
        scores = self._scores(group, key)
        if scores is None:
            return None
        for run, score in zip(group.runs, scores, strict=True):
            if (run.folder, key) not in self._draws:
                self._draws[run.folder, key] = intervals.distribution(score)
        total = self._draws[group.runs[0].folder, key]
        for run in group.runs[1:]:
            total = total + self._draws[run.folder, key]
        return total / len(group.runs)

    def difference(self, ours: RunGroup, theirs: RunGroup, key: str) -> Difference | None:
        """Return our figure less theirs with a paired interval; None where the test units are not the same."""
        if not self.same_units(ours, theirs):
            return None
        folds = self._folds(ours.runs[0])
        if len(folds) >= FEWEST_FOLDS:
            return intervals.paired_folds(self._by_fold(ours, key, folds), self._by_fold(theirs, key, folds))
        scores = self._scores(ours, key)
        draws, other_draws = self.draws(ours, key), self.draws(theirs, key)
        if scores is None or draws is None or other_draws is None:
            return None
        value = self.value(ours, key) - self.value(theirs, key)
        over = registry.get_or_base(ours.record.task).unit
        return intervals.paired(value, draws, other_draws, scores[0].units, over)

    def same_units(self, ours: RunGroup, theirs: RunGroup) -> bool:
        """Return whether two groups have readable predictions of the same test units, in the same order."""
        scored = [self._scored_run(run) for run in (*ours.runs, *theirs.runs)]
        units = [run.test_units for run in scored if run]
        return len(units) == len(scored) and all(other == units[0] for other in units)

    def value(self, group: RunGroup, key: str) -> float:
        """Return a metric's mean over seeds, as recorded."""
        return mean(metric.value for run in group.runs if (metric := run.metric(key, self.protocol)))

    def _scores(self, group: RunGroup, key: str) -> list[Score] | None:
        scored = [self._scored_run(run) for run in group.runs]
        return [run.scores[key] for run in scored if run] if all(run and key in run.scores for run in scored) else None

    def _scored_run(self, run: Run) -> _ScoredRun | None:
        if run.folder not in self._runs:
            try:
                predictions = scoring.run_predictions(run.folder, self.protocol == "historical")
                task = scoring.load_task(run.record, run.folder)
                scores = {score.metric.key: score for score in _score(task, predictions, run)}
                units = [(row.id, row.truth, row.fold) for row in predictions]
                self._runs[run.folder] = _ScoredRun(task, predictions, units, scores)
            except UserError as error:
                self.problems.append(f"{error} Its differences are left out.")
                self._runs[run.folder] = None
            self._on_scored(len(self._runs))
        return self._runs[run.folder]

    def _folds(self, run: Run) -> list[int]:
        scored = self._scored_run(run)
        return sorted({row.fold for row in scored.predictions}) if scored else []

    def _by_fold(self, group: RunGroup, key: str, folds: Sequence[int]) -> list[float]:
        return [sum(self._fold_value(run, key, fold) for run in group.runs) / len(group.runs) for fold in folds]

    def _fold_value(self, run: Run, key: str, fold: int) -> float:
        scored = self._scored_run(run)
        if scored is None:
            raise ValueError(f"{run.folder}: has no predictions to compare")
        scores = scored.task.score([row for row in scored.predictions if row.fold == fold])
        return next(score.value for score in scores if score.metric.key == key)


def _score(task: BaseTask, predictions: Sequence[Prediction], run: Run) -> list[Score]:
    """Score predictions, which may have been edited since the run.

    Raises:
        UserError: they can't be scored.
    """
    try:
        return task.score(predictions)
    except Exception as error:
        raise UserError(f"{run.folder}: its predictions can't be scored ({error!r}). Run it again.") from error
