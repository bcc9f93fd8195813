"""The predictions behind figures, scored again where two figures are compared or several are averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from downstreams.base import Prediction, Scored
from downstreams.metrics.scores import Score
from superb_eval.errors import UserError
from superb_eval.results.folder import Protocol, Run, RunGroup
from superb_eval.results.stats import intervals, scoring
from superb_eval.results.stats.intervals import Difference, Draws

FEWEST_FOLDS = 3
"""Where a task is cross-validated over that many folds or more, two upstreams are compared fold by fold."""

UNITS = {"asv": "trials", "qbe": "queries", "sd": "recordings"}
"""What is resampled, where that is not the utterance."""


@dataclass(frozen=True)
class _Read:
    """A run's predictions. `asked`: what makes a test unit the same as another's."""

    task: Scored
    rows: list[Prediction]
    asked: list[tuple[str, str, int]]
    scores: dict[str, Score]


class Evidence:
    """Reads and scores the predictions of runs, each once. `problems` lists those that can't be.

    `seen` hears how many runs have been scored.
    """

    def __init__(self, protocol: Protocol, seen: Callable[[int], None] = lambda count: None) -> None:
        self.protocol: Protocol = protocol
        self.problems: list[str] = []
        self._seen = seen
        self._found: dict[Path, _Read | None] = {}
        self._draws: dict[tuple[Path, str], Draws] = {}

    def draws(self, cell: RunGroup, key: str) -> Draws | None:
        """Return a metric's mean over seeds on resamples, or None where predictions are missing."""
        scores = self._scores(cell, key)
        if scores is None:
            return None
        for run, score in zip(cell.runs, scores, strict=True):
            if (run.folder, key) not in self._draws:
                self._draws[run.folder, key] = intervals.distribution(score)
        total = self._draws[cell.runs[0].folder, key]
        for run in cell.runs[1:]:
            total = total + self._draws[run.folder, key]
        return total / len(cell.runs)

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
        over = UNITS.get(ours.record.task, "utterances")
        return intervals.paired(value, draws, other_draws, scores[0].units, over)

    def same_units(self, ours: RunGroup, theirs: RunGroup) -> bool:
        """Return whether two cells answered the same test units, in the same order, and their predictions are there."""
        found = [self._of(run) for run in (*ours.runs, *theirs.runs)]
        asked = [read.asked for read in found if read]
        return len(asked) == len(found) and all(other == asked[0] for other in asked)

    def value(self, cell: RunGroup, key: str) -> float:
        """Return a metric's mean over seeds, as recorded."""
        return mean(found.value for run in cell.runs if (found := run.figure(key, self.protocol)))

    def _scores(self, cell: RunGroup, key: str) -> list[Score] | None:
        found = [self._of(run) for run in cell.runs]
        return [f.scores[key] for f in found if f] if all(f and key in f.scores for f in found) else None

    def _of(self, run: Run) -> _Read | None:
        if run.folder not in self._found:
            try:
                rows = scoring.rows_of(run.folder, self.protocol == "historical")
                task = scoring.task_of(run.record, run.folder)
                scores = {score.metric.key: score for score in _scored(task, rows, run)}
                asked = [(row.id, row.truth, row.fold) for row in rows]
                self._found[run.folder] = _Read(task, rows, asked, scores)
            except UserError as error:
                self.problems.append(f"{error} Its differences are left out.")
                self._found[run.folder] = None
            self._seen(len(self._found))
        return self._found[run.folder]

    def _folds(self, run: Run) -> list[int]:
        found = self._of(run)
        return sorted({row.fold for row in found.rows}) if found else []

    def _by_fold(self, cell: RunGroup, key: str, folds: Sequence[int]) -> list[float]:
        return [sum(self._value(run, key, fold) for run in cell.runs) / len(cell.runs) for fold in folds]

    def _value(self, run: Run, key: str, fold: int) -> float:
        found = self._of(run)
        assert found is not None  # noqa: S101 - `same_units` has seen it
        scores = found.task.score([row for row in found.rows if row.fold == fold])
        return next(score.value for score in scores if score.metric.key == key)


def _scored(task: Scored, rows: Sequence[Prediction], run: Run) -> list[Score]:
    """Score rows that anybody may have edited.

    Raises:
        UserError: they can't be scored.
    """
    try:
        return task.score(rows)
    except Exception as error:
        raise UserError(f"{run.folder}: its predictions can't be scored ({error!r}). Run the cell again.") from error
