"""What a run's training warns of: its best checkpoint is its last, learning rates diverged, or updates were skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from downstreams.base import TrainedTask
from superb_eval.probing.folds import FoldResult, LearningRateResult
from superb_eval.probing.probe_state import TrainingState, selection_metric
from superb_eval.recipe import TrainSettings


def run_warnings(
    task: TrainedTask, settings: TrainSettings, results: Sequence[FoldResult], standard_error: float = 0.0
) -> list[str]:
    """Return a sentence for each thing that the user should know of a run's training; one for all of its folds.

    `standard_error` is that of the first metric: a best checkpoint is often the last by chance, where dev has come to
    rest.
    """
    return [
        *_best_is_last(task, settings, results, standard_error),
        *(text for k in range(len(results[0].rates)) for text in _diverged([result.rates[k] for result in results])),
        *_skipped(settings, results),
    ]


def _best_is_last(
    task: TrainedTask, settings: TrainSettings, results: Sequence[FoldResult], standard_error: float
) -> Iterator[str]:
    """Of the chosen rate, where the last fifth of updates gained more than half a standard error."""
    chosen = [result.chosen.state for result in results if result.chosen is not None]
    last = [state for state in chosen if state.best.step == settings.steps and _last_fifth(state) > standard_error / 2]
    if not last:
        return
    dev = f"dev {selection_metric(task).heading}"
    folds, value = (
        (f"in {len(last)} of {len(chosen)} folds ", "") if len(chosen) > 1 else ("", f" {last[0].best.value:.2f}")
    )
    yield (
        f"{folds}the best checkpoint is the last one, of step {settings.steps} ({dev}{value}): training was still "
        f"improving. Train longer, such as -o train.steps={2 * settings.steps}."
    )


def _last_fifth(state: TrainingState) -> float:
    """How much dev changed over the last fifth of updates; 0 where it was evaluated once alone."""
    before = [point for point in state.curve if point["step"] <= 0.8 * state.step] or state.curve[:1]
    return abs(state.curve[-1]["dev"] - before[-1]["dev"]) if len(state.curve) > 1 else 0.0


def _diverged(of_folds: Sequence[LearningRateResult]) -> Iterator[str]:
    steps = [rate.state.diverged_at for rate in of_folds if rate.state.diverged_at is not None]
    if steps:
        folds = f" in {len(steps)} of {len(of_folds)} folds" if len(of_folds) > 1 else ""
        yield (
            f"learning rate {of_folds[0].lr:g} diverged{folds} and was left out after step {min(steps)}: its updates "
            "had no finite gradient any more. Remove it from train.lr."
        )


def _skipped(settings: TrainSettings, results: Sequence[FoldResult]) -> Iterator[str]:
    chosen = [result.chosen for result in results if result.chosen is not None]
    skipped, updates = sum(rate.state.skipped for rate in chosen), settings.steps * len(chosen)
    if skipped:
        yield f"{skipped} of {updates} updates had no finite gradient and were skipped. Lower train.lr."
