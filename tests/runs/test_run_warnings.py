"""What a run's training warns of, in the record and in what `run` and `suite` print."""

from __future__ import annotations

import pytest

from downstreams.base import Setup
from downstreams.er import EmotionRecognition
from downstreams.sd import DiarizationHead, SpeakerDiarization
from superb_eval.probing.folds import FoldResult, LearningRateResult
from superb_eval.probing.probe_state import Best, TrainingState
from superb_eval.recipe import TrainSettings
from superb_eval.runs.run_warnings import run_warnings

SETTINGS = TrainSettings(steps=60, eval_every=20)
ER = EmotionRecognition(Setup(["a", "b"], EmotionRecognition.Head()))


def result(fold: int, best_step: int, points: int = 3, skipped: int = 0, diverged_at: int | None = None) -> FoldResult:
    """Two rates: the first is the chosen one, the second may have diverged."""
    curve = [{"step": 20.0 * (k + 1), "loss": 1.0, "dev": 50.0 + k} for k in range(points)]
    chosen = LearningRateResult(1e-2, TrainingState(60, Best(best_step, 51.25), curve=curve, skipped=skipped))
    other = LearningRateResult(1e30, TrainingState(60, skipped=10, diverged_at=diverged_at))
    return FoldResult(fold, (chosen, other), chosen, [], [], [], 0)


def test_nothing_is_warned_of_where_the_best_checkpoint_is_an_earlier_one() -> None:
    assert run_warnings(ER, SETTINGS, [result(1, 40), result(2, 20)]) == []


def test_a_best_checkpoint_that_is_the_last_is_named_with_its_metric_and_step() -> None:
    assert run_warnings(ER, SETTINGS, [result(1, 60)]) == [
        "the best checkpoint is the last one, of step 60 (dev ACC 51.25): training was still improving. "
        "Train longer, such as -o train.steps=120."
    ]
    diarization = SpeakerDiarization(Setup(2, DiarizationHead()))
    assert "(dev frame ACC 51.25)" in run_warnings(diarization, SETTINGS, [result(1, 60)])[0]


def test_a_last_fifth_within_half_a_standard_error_is_flat() -> None:
    assert run_warnings(ER, SETTINGS, [result(1, 60)], standard_error=1.9) != []
    assert run_warnings(ER, SETTINGS, [result(1, 60)], standard_error=2.1) == []


def test_folds_share_one_sentence() -> None:
    (sentence,) = run_warnings(ER, SETTINGS, [result(1, 60), result(2, 20), result(3, 60)])
    assert sentence.startswith("in 2 of 3 folds the best checkpoint is the last one, of step 60 (dev ACC): ")


def test_a_single_evaluation_says_nothing_about_the_last() -> None:
    assert run_warnings(ER, SETTINGS, [result(1, 60, points=1)]) == []


@pytest.mark.parametrize(
    ("folds", "where"), [([40], ""), ([None, 40, 20], " in 2 of 3 folds")], ids=["one fold", "three folds"]
)
def test_a_diverged_rate_is_named_once(folds: list[int | None], where: str) -> None:
    (sentence,) = run_warnings(ER, SETTINGS, [result(k, 20, diverged_at=step) for k, step in enumerate(folds, start=1)])
    first = min(step for step in folds if step)
    assert sentence.startswith(f"learning rate 1e+30 diverged{where} and was left out after step {first}:")


def test_skipped_updates_of_the_chosen_rate_are_counted() -> None:
    (sentence,) = run_warnings(ER, SETTINGS, [result(1, 20, skipped=1), result(2, 20, skipped=2)])
    assert sentence.startswith("3 of 120 updates had no finite gradient and were skipped.")
