"""The diarisation error rate against a count of milliseconds, over all ways to map speakers."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from downstreams.metrics.diarization import decode_turns, error_seconds, turns_from_json, turns_to_json
from superb_eval.data.manifest import Turn

MILLISECONDS = 3000


@st.composite
def turns(draw: st.DrawFn, names: str) -> list[Turn]:
    """Up to three turns for each speaker; one speaker's don't overlap."""
    answer = []
    for name in names:
        edges = sorted(draw(st.sets(st.integers(0, MILLISECONDS), max_size=6)))
        answer += [Turn(a / 1000, b / 1000, name) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    return sorted(answer)


def active(answer: list[Turn], names: str) -> NDArray[np.bool_]:
    """Who speaks in each millisecond, [speakers, milliseconds]."""
    table = np.zeros((len(names), MILLISECONDS), dtype=bool)
    for turn in answer:
        table[names.index(turn.speaker), round(turn.start * 1000) : round(turn.end * 1000)] = True
    return table


def counted(reference: list[Turn], answer: list[Turn], truth: str, names: str) -> tuple[float, float]:
    """Milliseconds in which max(speakers that speak, speakers found) less those that are right; the best mapping."""
    reference_active, hypothesis = active(reference, truth), active(answer, names)
    size = max(len(truth), len(names))
    hypothesis = np.vstack([hypothesis, np.zeros((size - len(hypothesis), MILLISECONDS), dtype=bool)])
    reference_active = np.vstack([reference_active, np.zeros((size - len(reference_active), MILLISECONDS), dtype=bool)])
    right = max((reference_active & hypothesis[list(order)]).sum() for order in permutations(range(size)))
    wrong = np.maximum(reference_active.sum(axis=0), hypothesis.sum(axis=0)).sum() - right
    return wrong / 1000, reference_active.sum() / 1000


@settings(max_examples=300, deadline=None)
@given(turns("AB"), turns("01"))
def test_two_speakers_equal_a_count_of_milliseconds(reference: list[Turn], answer: list[Turn]) -> None:
    assert error_seconds(reference, answer) == pytest.approx(counted(reference, answer, "AB", "01"), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(turns("ABC"), turns("01"))
def test_three_speakers_equal_a_count_of_milliseconds(reference: list[Turn], answer: list[Turn]) -> None:
    assert error_seconds(reference, answer) == pytest.approx(counted(reference, answer, "ABC", "01"), abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_decisions_come_back_from_their_turns(frames: list[bool]) -> None:
    answer = decode_turns(np.array(frames, dtype=np.float32)[:, None], 0.5, 1, 160)
    table = np.zeros(len(frames), dtype=bool)
    for turn in answer:
        table[round(turn.start * 100) : round(turn.end * 100)] = True
    assert table.tolist() == frames


def test_edges_of_the_error_rate() -> None:
    speech = [Turn(1.0, 2.0, "a"), Turn(1.5, 2.5, "b")]
    assert error_seconds(speech, speech) == (0.0, 2.0)
    assert error_seconds(speech, []) == (2.0, 2.0)
    assert error_seconds([], speech) == (2.0, 0.0)
    assert error_seconds([], []) == (0.0, 0.0)


def test_turns_are_written_and_read() -> None:
    speech = [Turn(1.0, 2.25, "a"), Turn(1.5, 2.5, "b")]
    assert turns_from_json(turns_to_json(speech)) == speech
