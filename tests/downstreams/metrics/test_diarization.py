"""The diarisation error rate against a count of milliseconds, over all ways to map speakers."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from downstreams.metrics.diarization import error, read, turns_of, written
from superb_eval.data.manifest import Turn

MILLISECONDS = 3000


@st.composite
def turns(draw: st.DrawFn, names: str) -> list[Turn]:
    """Up to three turns for each speaker; one speaker's don't overlap."""
    found = []
    for name in names:
        edges = sorted(draw(st.sets(st.integers(0, MILLISECONDS), max_size=6)))
        found += [Turn(a / 1000, b / 1000, name) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    return sorted(found)


def active(found: list[Turn], names: str) -> NDArray[np.bool_]:
    """Who speaks in each millisecond, [speakers, milliseconds]."""
    table = np.zeros((len(names), MILLISECONDS), dtype=bool)
    for turn in found:
        table[names.index(turn.speaker), round(turn.start * 1000) : round(turn.end * 1000)] = True
    return table


def counted(reference: list[Turn], found: list[Turn], truth: str, names: str) -> tuple[float, float]:
    """Milliseconds in which max(speakers that speak, speakers found) less those that are right; the best mapping."""
    wanted, heard = active(reference, truth), active(found, names)
    size = max(len(truth), len(names))
    heard = np.vstack([heard, np.zeros((size - len(heard), MILLISECONDS), dtype=bool)])
    wanted = np.vstack([wanted, np.zeros((size - len(wanted), MILLISECONDS), dtype=bool)])
    right = max((wanted & heard[list(order)]).sum() for order in permutations(range(size)))
    wrong = np.maximum(wanted.sum(axis=0), heard.sum(axis=0)).sum() - right
    return wrong / 1000, wanted.sum() / 1000


@settings(max_examples=300, deadline=None)
@given(turns("AB"), turns("01"))
def test_two_speakers_equal_a_count_of_milliseconds(reference: list[Turn], found: list[Turn]) -> None:
    assert error(reference, found) == pytest.approx(counted(reference, found, "AB", "01"), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(turns("ABC"), turns("01"))
def test_three_speakers_equal_a_count_of_milliseconds(reference: list[Turn], found: list[Turn]) -> None:
    assert error(reference, found) == pytest.approx(counted(reference, found, "ABC", "01"), abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_decisions_come_back_from_their_turns(frames: list[bool]) -> None:
    found = turns_of(np.array(frames, dtype=np.float32)[:, None], 0.5, 1, 160)
    table = np.zeros(len(frames), dtype=bool)
    for turn in found:
        table[round(turn.start * 100) : round(turn.end * 100)] = True
    assert table.tolist() == frames


def test_edges_of_the_error_rate() -> None:
    speech = [Turn(1.0, 2.0, "a"), Turn(1.5, 2.5, "b")]
    assert error(speech, speech) == (0.0, 2.0)
    assert error(speech, []) == (2.0, 2.0)
    assert error([], speech) == (2.0, 0.0)
    assert error([], []) == (0.0, 0.0)


def test_turns_are_written_and_read() -> None:
    speech = [Turn(1.0, 2.25, "a"), Turn(1.5, 2.5, "b")]
    assert read(written(speech)) == speech
