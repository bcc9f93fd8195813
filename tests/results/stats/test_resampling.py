"""Resamples of nested units: their variances against exact ones, and what is drawn together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from downstreams.base import Prediction, nested
from downstreams.metrics import eer
from downstreams.metrics.scores import Metric, Nesting, Score, nest, ratio
from downstreams.registry import get
from superb_eval.results.stats import intervals, resampling
from superb_eval.results.stats.resampling import NEW_SPEAKERS, NEW_UNITS, THESE_SPEAKERS, Population

METRIC = Metric("acc", "ACC", higher_is_better=True)


def means(values: NDArray[np.float64], speakers: list[int], strata: NDArray[np.intp] | None = None) -> Score:
    """The mean of values, nested in speakers."""
    nesting = Nesting(np.arange(len(values))[:, None], np.array(speakers, dtype=np.intp))
    return replace(ratio(METRIC, values, np.ones(len(values))), nesting=nesting, strata=strata)


def drawn(score: Score, of: Population, count: int = 4000) -> NDArray[np.float64]:
    return np.concatenate(list(resampling.draw(score, of, count, np.random.default_rng(1))))


def test_speakers_are_drawn_whole_and_utterances_within_their_speaker() -> None:
    score = means(np.arange(12.0), [k // 4 for k in range(12)])
    whole = drawn(score, NEW_SPEAKERS).reshape(-1, 3, 4)
    assert (whole == whole[:, :, :1]).all() and whole.sum(axis=(1, 2)) == pytest.approx(12)
    within = drawn(score, THESE_SPEAKERS).reshape(-1, 3, 4)
    assert within.sum(axis=2) == pytest.approx(4), "each speaker counts as often as before"


@pytest.mark.parametrize("of", [NEW_SPEAKERS, THESE_SPEAKERS, NEW_UNITS])
def test_the_variance_of_a_mean_is_the_textbooks(of: Population) -> None:
    rng = np.random.default_rng(0)
    sizes = [2, 3, 4, 6, 6, 6]
    speakers = np.repeat(np.arange(6), sizes)
    values = rng.normal(speakers, 1.0)
    n, centred = len(values), values - values.mean()
    # Of a ratio estimator over whole speakers, of a stratified mean, of a simple one.
    by_speaker = np.bincount(speakers, centred)
    expected = {
        NEW_SPEAKERS: 6 / 5 * np.sum(by_speaker**2) / n**2,
        THESE_SPEAKERS: sum(k * np.var(values[speakers == s], ddof=1) for s, k in enumerate(sizes)) / n**2,
        NEW_UNITS: np.var(values, ddof=1) / n,
    }[of]
    score = replace(means(values, speakers.tolist()), share=False)
    found = intervals.variance(intervals.distribution(score, of)) / 100**2
    assert found == pytest.approx(expected, rel=0.12)
    assert resampling.degrees_of_freedom(score, of) == {NEW_SPEAKERS: 5, THESE_SPEAKERS: 21, NEW_UNITS: 26}[of]


def test_folds_are_resampled_each_within_itself() -> None:
    folds = np.repeat([0, 1], 6)
    score = means(np.arange(12.0), [k // 2 for k in range(12)], folds)
    assert drawn(score, NEW_SPEAKERS).reshape(-1, 2, 6).sum(axis=2) == pytest.approx(6)
    assert resampling.degrees_of_freedom(score, NEW_SPEAKERS) == 4


def test_single_utterances_vary_together_and_one_speaker_is_no_population() -> None:
    alone = means(np.arange(6.0), [0, 1, 2, 3, 4, 5])
    assert drawn(alone, THESE_SPEAKERS).var() > 0.5, "their speakers have no second utterance, but they vary"
    single = means(np.arange(6.0), [0] * 6)
    assert resampling.population(single) == THESE_SPEAKERS
    one_a_fold = means(np.arange(6.0), [0, 0, 1, 1, 2, 2], np.repeat([0, 1, 2], 2))
    assert resampling.population(one_a_fold) == THESE_SPEAKERS, "cross-validated speaker by speaker"
    assert np.isfinite(intervals.interval(one_a_fold)).all()
    assert resampling.population(replace(single, nesting=None)) == NEW_UNITS


def test_both_sides_of_a_trial_are_drawn() -> None:
    pairs = np.array([[0, 1], [0, 2], [2, 3], [4, 0]])
    nesting = Nesting(pairs, np.array([0, 0, 1, 1, 2]))
    score = replace(
        eer.score(METRIC, np.array([True, False, True, False]), np.array([0.9, 0.1, 0.8, 0.2])), nesting=nesting
    )
    weights = drawn(score, NEW_SPEAKERS)
    nobody = weights[:, 0] == 0  # speaker 0 was not drawn
    assert nobody.any() and (weights[nobody][:, [1, 3]] < 0.3).all(), "its trials with others count little or nothing"
    assert (
        list(resampling.draw_pairs(means(np.arange(4.0), [0, 0, 1, 1]), NEW_SPEAKERS, 9, np.random.default_rng())) == []
    )


@pytest.mark.parametrize("of", [THESE_SPEAKERS, NEW_SPEAKERS])
def test_the_variance_over_trials_is_that_of_new_draws(of: Population) -> None:
    """A mean over all pairs of noise that belongs to an utterance, a speaker and a pair: all three are counted once."""

    def simulate(rng: np.random.Generator, voice: NDArray[np.float64]) -> Score:
        speakers, each = 12, 6
        speaker = np.repeat(np.arange(speakers), each)
        own = voice[speaker] + rng.standard_normal(len(speaker))
        pairs = np.stack(np.triu_indices(len(speaker), 1), axis=1)
        pairs = pairs[speaker[pairs[:, 0]] != speaker[pairs[:, 1]]]
        values = own[pairs].sum(axis=1) + 3 * rng.standard_normal(len(pairs))
        return replace(ratio(METRIC, values, np.ones(len(pairs))), nesting=Nesting(pairs, speaker))

    rng = np.random.default_rng(0)
    voice = rng.standard_normal(12)
    scores = [simulate(rng, voice if of == THESE_SPEAKERS else rng.standard_normal(12)) for _ in range(300)]
    actual = np.var([score.value for score in scores])
    found = np.mean([intervals.variance(intervals.distribution(score, of)) for score in scores[:12]])
    assert found == pytest.approx(actual, rel=0.3)


def test_trials_as_if_independent_would_be_too_sure() -> None:
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(16), 8)
    vectors = 1.2 * rng.standard_normal((16, 16))[speaker] + rng.standard_normal((128, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = np.stack(np.triu_indices(128, 1), axis=1)
    target = speaker[pairs[:, 0]] == speaker[pairs[:, 1]]
    score = eer.score(METRIC, target, np.sum(vectors[pairs[:, 0]] * vectors[pairs[:, 1]], axis=1))
    widths = {}
    for of in (NEW_UNITS, THESE_SPEAKERS, NEW_SPEAKERS):
        low, high = intervals.interval(replace(score, nesting=Nesting(pairs, speaker)), of)
        widths[of] = high - low
    assert widths[NEW_UNITS] < 0.8 * widths[THESE_SPEAKERS] < 0.8 * widths[NEW_SPEAKERS]


def test_few_speakers_get_students_interval() -> None:
    """Five folds of two speakers each have 32 resamples, whose percentiles can't reach 2.57 standard errors."""
    values = np.array([0.1, 0.5, 0.3, 0.6, 0.2, 0.7, 0.4, 0.9, 0.3, 0.5])
    score = means(values, list(range(10)), np.repeat(np.arange(5), 2))
    low, high = intervals.interval(score)
    error = 100 * np.sqrt(np.sum(np.diff(values.reshape(5, 2)) ** 2)) / 10
    assert (high - low) / 2 == pytest.approx(2.571 * error, rel=0.06)


def test_speakers_are_read_from_predictions() -> None:
    assert nest([("",), ("",)], [("a",), ("b",)]) is None
    nesting = nest([("anna",), ("",), ("anna",), ("",)], [("a",), ("b",), ("c",), ("d",)])
    assert nesting is not None and len(set(nesting.speakers.tolist())) == 3, "a clip without a speaker stands alone"
    task = get("asv").__new__(get("asv"))
    rows = [Prediction("a b", "1", "0.9", 1, "anna\tanna"), Prediction("a c", "0", "0.1", 1, "anna\tbert")]
    (score,) = nested(task, task.score(rows), rows)
    assert score.nesting is not None and score.nesting.utterances.tolist() == [[0, 1], [0, 2]]
    assert score.nesting.speakers.tolist() == [0, 0, 1]


def test_the_draws_of_a_version_are_pinned() -> None:
    """Whoever changes them raises resampling.VERSION, or `verify` takes older records for changed ones."""
    values = np.array([0.0, 1.0, 1.0, 0.0, 2.0, 1.0, 3.0, 1.0])
    score = means(values, [0, 0, 1, 1, 2, 2, 3, 3])
    pairs = np.array([[0, 1], [2, 3], [4, 5], [0, 2], [2, 4], [4, 0]])
    nesting = Nesting(pairs, np.array([0, 0, 1, 1, 2, 2]))
    trials = eer.score(METRIC, np.arange(6) < 3, np.array([0.9, 0.4, 0.8, 0.1, 0.6, 0.2]))
    found = {
        of: [float(w.sum()) for w in (drawn(score, of, 3) ** 2, drawn(replace(trials, nesting=nesting), of, 3) ** 2)]
        for of in (NEW_SPEAKERS, THESE_SPEAKERS, NEW_UNITS)
    }
    assert resampling.VERSION == 1
    assert found[NEW_SPEAKERS] == pytest.approx([46.222222, 27.0])
    assert found[THESE_SPEAKERS] == pytest.approx([48.0, 47.313708])
    assert found[NEW_UNITS] == pytest.approx([37.877551, 27.36])
