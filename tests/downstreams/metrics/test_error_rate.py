"""Error rates: jiwer against plain dynamic programming, and the best constant answer against trying them all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downstreams.metrics import error_rate
from downstreams.metrics.scores import Metric

WER = Metric("wer", "WER", higher_is_better=False)
WORDS = st.lists(st.sampled_from(["a", "b", "aa", "'"]), max_size=8)


def distance(truth: Sequence[str], answer: Sequence[str]) -> int:
    """Levenshtein's distance, from the definition."""
    row = list(range(len(answer) + 1))
    for i, t in enumerate(truth, start=1):
        before, row[0] = row[0], i
        for j, a in enumerate(answer, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (t != a))
    return row[-1]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(WORDS.filter(bool), WORDS), min_size=1, max_size=5))
def test_words_are_counted_as_by_definition(pairs: list[tuple[list[str], list[str]]]) -> None:
    edits = error_rate.word_edits([" ".join(t) for t, _ in pairs], [" ".join(a) for _, a in pairs])
    assert edits.errors.tolist() == [distance(t, a) for t, a in pairs]
    assert edits.lengths.tolist() == [len(t) for t, _ in pairs]
    expected = 100 * sum(distance(t, a) for t, a in pairs) / sum(len(t) for t, _ in pairs)
    assert error_rate.error_rate(WER, edits).value == pytest.approx(expected)


@settings(max_examples=200, deadline=None)
@given(st.text("AB '", min_size=1).map(str.strip).filter(bool), st.text("AB '").map(str.strip))
def test_characters_are_counted_as_by_definition(truth: str, answer: str) -> None:
    edits = error_rate.character_edits([truth], [answer])
    assert (edits.errors.item(), edits.lengths.item()) == (distance(truth, answer), len(truth))


def test_an_empty_answer_errs_once_for_each_word() -> None:
    edits = error_rate.word_edits(["a b c d"], [""])
    assert edits.errors.tolist() == [4.0]


def test_rates_are_micro_averages_and_can_be_resampled() -> None:
    score = error_rate.error_rate(WER, error_rate.word_edits(["a", "b c d"], ["x", "b c d"]))
    assert score.value == 25.0
    assert score.statistic(np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])).tolist() == [100.0, 0.0, 25.0]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=6), min_size=1, max_size=4))
def test_the_best_constant_answer_is_found(truths: list[list[str]]) -> None:
    total = sum(map(len, truths))
    common = max("abc", key=lambda w: sum(t.count(w) for t in truths))
    ties = [w for w in "abc" if sum(t.count(w) for t in truths) == sum(t.count(common) for t in truths)]
    expected = [min(100 * sum(distance(t, [w] * n) for t in truths) / total for n in range(8)) for w in ties]
    assert any(error_rate.constant_word_error_rate([" ".join(t) for t in truths]) == pytest.approx(e) for e in expected)
