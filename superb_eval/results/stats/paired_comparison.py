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
from superb_eval.results.stats import differences, intervals, resampling, scoring, training_spread
from superb_eval.results.stats.differences import Difference
from superb_eval.results.stats.intervals import Draws
from superb_eval.results.stats.resampling import NEW_SPEAKERS, NEW_UNITS, Population
from superb_eval.results.stats.training_spread import TrainingSpread, Variance

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

    `population` is what intervals are for, where speakers are known. `problems` lists the runs whose predictions can't
    be scored. `on_scored` is called with the number of runs scored.
    """

    def __init__(
        self,
        protocol: Protocol,
        on_scored: Callable[[int], None] = lambda count: None,
        population: Population = NEW_SPEAKERS,
    ) -> None:
        self.protocol: Protocol = protocol
        self.population = population
        self.problems: list[str] = []
        self._on_scored = on_scored
        self._runs: dict[Path, _ScoredRun | None] = {}
        self._draws: dict[tuple[Path, str, Population], Draws] = {}

    def draws(self, group: RunGroup, key: str, of: Population | None = None) -> Draws | None:
        """Return a metric's mean over seeds on resamples, or None where predictions are missing."""
        each = self._each_seed(group, key, of or self.population)
        if each is None:
            return None
        total = each[0]
        for draws in each[1:]:
            total = total + draws
        return total / len(each)

    def degrees_of_freedom(self, group: RunGroup, key: str) -> int:
        """Return how many independent deviations of its test units a group's intervals are estimated from."""
        scores = self._scores(group, key)
        return resampling.degrees_of_freedom(scores[0], self._common([scores])) if scores else 0

    def population_of(self, group: RunGroup, key: str) -> Population | None:
        """Return what a group's intervals are for; None where predictions are missing."""
        scores = self._scores(group, key)
        return self._common([scores]) if scores else None

    def spread(self, group: RunGroup, key: str) -> TrainingSpread | None:
        """Return how far a metric moves between trainings: measured from the seeds, or shipped; None: unknown."""
        known = training_spread.find(group.record, key)
        strict = all(run.metric(key, self.protocol) == run.metric(key, "strict") for run in group.runs)
        if known and known.sd > 0 and not strict:  # the best of several on test moves otherwise
            known = None
        if len(group.runs) == 1:
            return known
        draws = self._each_seed(group, key, self.population)
        if draws is None:
            return known
        return training_spread.measure([self._recorded(run, key) for run in group.runs], draws, known)

    def training(self, group: RunGroup, key: str) -> Variance | None:
        """Return the variance that training gives a metric's mean over seeds; None where it is unknown."""
        spread = self.spread(group, key)
        return None if spread is None else Variance(spread.sd**2 / len(group.runs), spread.df)

    def difference(self, ours: RunGroup, theirs: RunGroup, key: str) -> Difference | None:
        """Return our figure less theirs with a paired interval; None where the test units are not the same."""
        if not self.same_units(ours, theirs):
            return None
        folds = self._folds(ours.runs[0])
        if len(folds) >= FEWEST_FOLDS:
            return differences.paired_folds(self._by_fold(ours, key, folds), self._by_fold(theirs, key, folds))
        scores, other_scores = self._scores(ours, key), self._scores(theirs, key)
        if scores is None or other_scores is None:
            return None
        of = self._common([scores, other_scores])
        draws, other_draws = self.draws(ours, key, of), self.draws(theirs, key, of)
        if draws is None or other_draws is None:
            return None
        variances = [self.training(ours, key), self.training(theirs, key)]
        known = [part for part in variances if part is not None]
        return differences.paired(
            self.value(ours, key) - self.value(theirs, key),
            draws - other_draws,
            resampling.degrees_of_freedom(scores[0], of),
            self._resampled(ours, scores[0], of),
            Variance.total(known) if len(known) == len(variances) else None,
        )

    def same_units(self, ours: RunGroup, theirs: RunGroup) -> bool:
        """Return whether two groups have readable predictions of the same test units, in the same order."""
        scored = [self._scored_run(run) for run in (*ours.runs, *theirs.runs)]
        units = [run.test_units for run in scored if run]
        return len(units) == len(scored) and all(other == units[0] for other in units)

    def value(self, group: RunGroup, key: str) -> float:
        """Return a metric's mean over seeds, as recorded."""
        return mean(self._recorded(run, key) for run in group.runs)

    def _recorded(self, run: Run, key: str) -> float:
        metric = run.metric(key, self.protocol)
        if metric is None:
            raise ValueError(f"{run.folder}: has no metric {key}")
        return metric.value

    def _each_seed(self, group: RunGroup, key: str, of: Population) -> list[Draws] | None:
        scores = self._scores(group, key)
        if scores is None:
            return None
        of = self._common([scores], of)
        for run, score in zip(group.runs, scores, strict=True):
            if (run.folder, key, of) not in self._draws:
                self._draws[run.folder, key, of] = intervals.distribution(score, of)
        return [self._draws[run.folder, key, of] for run in group.runs]

    def _common(self, groups: Sequence[Sequence[Score]], of: Population | None = None) -> Population:
        """What all scores can be resampled over; older records name no speakers."""
        found = {resampling.population(score, of or self.population) for scores in groups for score in scores}
        return found.pop() if len(found) == 1 else NEW_UNITS

    def _resampled(self, group: RunGroup, score: Score, of: Population) -> str:
        """What an interval resamples, with its number."""
        if of == NEW_SPEAKERS and score.nesting is not None:
            return f"{int(score.nesting.speakers.max()) + 1} speakers"
        return f"{score.units} {registry.get_or_base(group.record.task).unit}"

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
        return scoring.scores(task, predictions)
    except UserError as error:
        raise UserError(f"{run.folder}: {error}") from error
