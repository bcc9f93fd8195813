"""What a run's training warns of: its best checkpoint is its last, learning rates diverged, or updates were skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from downstreams.base import TrainedTask
from superb_eval.probing.folds import FoldResult, LearningRateResult
from superb_eval.probing.probe_state import selection_metric
from superb_eval.recipe import TrainSettings


def run_warnings(task: TrainedTask, settings: TrainSettings, results: Sequence[FoldResult]) -> list[str]:
    """Return a sentence for each thing that the user should know of a run's training; one for all of its folds."""
    return [
        *_best_is_last(task, settings, results),
        *(text for k in range(len(results[0].rates)) for text in _diverged([result.rates[k] for result in results])),
        *_skipped(settings, results),
    ]


def _best_is_last(task: TrainedTask, settings: TrainSettings, results: Sequence[FoldResult]) -> Iterator[str]:
    """Of the chosen rate; where dev was evaluated once alone, the last checkpoint is the only one."""
    chosen = [result.chosen.state for result in results if result.chosen is not None]
    last = [state for state in chosen if state.best.step == settings.steps and len(state.curve) > 1]
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
