"""Slot metrics: the protocol's examples, and s3prl's functions on hundreds of decoded paths."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downstreams.sf import MarkedText
from downstreams.text import slots
from downstreams.text.vocabulary import CHARACTERS, SPECIALS, Characters

NAMES = ["city", "cityname", "x"]


@pytest.fixture(scope="module")
def theirs() -> Iterator[Any]:
    """s3prl's `ctc/metric.py`; the package that counts its edits needs no more than one function."""
    from rapidfuzz.distance import Levenshtein

    stand_in = ModuleType("editdistance")
    stand_in.eval = Levenshtein.distance  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "editdistance", stand_in)
        from s3prl.downstream.ctc import metric

        yield metric


def cer(truth: str, answer: str) -> tuple[float, float]:
    errors, lengths = slots.value_edits([truth], [answer])
    return errors.item(), lengths.item()


def test_the_protocols_examples() -> None:
    truth, answer = "B-a X E-a B-b Y E-b", "B-a X E-a"
    assert slots.type_f1([truth], [answer]).item() == pytest.approx(2 / 3)
    assert cer(truth, answer) == (1, 2)
    assert slots.type_f1(["X", "X"], ["Y", "B-a Y E-a"]).tolist() == [1.0, 0.0]
    assert cer("X", "B-a Y E-a") == (0, 0)
    twice = "B-a X E-a AND B-a YZ E-a"
    assert slots.type_f1([twice], ["B-a X E-a"]).item() == 1.0
    assert cer(twice, "B-a X E-a") == (2, 3)


def test_marks_inside_a_value_are_dropped_and_broken_ones_ignored() -> None:
    assert slots.extract_slots("B-a X B-b Y E-b Z E-a") == {"a": ["X Y Z"]}
    assert slots.extract_slots("B-a X E-b Y") == {}
    assert slots.extract_slots("B-a  X  Y E-a") == {"a": ["X Y"]}


def test_the_nearest_value_of_the_type_counts_and_may_serve_again() -> None:
    assert cer("B-a PARIS E-a B-a PARI E-a", "B-a LONDON E-a B-a PARIS E-a") == (1, 9)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["A", "BA", "ABBA"]), st.sampled_from(["O", *NAMES])), min_size=1, max_size=6),
    st.lists(st.integers(0, 37).map(lambda i: i if i > 30 else 3 + i % 4), max_size=25),
)
def test_metrics_are_s3prls(theirs: Any, spoken: list[tuple[str, str]], path: list[int]) -> None:
    from s3prl.downstream.ctc.text import CharacterTextSlotEncoder

    marks = [mark + name for name in NAMES for mark in ("B-", "E-")]
    encoder = CharacterTextSlotEncoder(list(CHARACTERS), marks)
    ours = MarkedText(Characters([*SPECIALS, *CHARACTERS]), NAMES)
    assert len(ours) == encoder.vocab_size == 37
    path = [i for i in path if i < len(ours)]
    words, names = zip(*spoken, strict=True)
    tags = [n if n == "O" else ("I-" if n == b else "B-") + n for b, n in zip(("O", *names), names, strict=False)]
    ids = encoder.encode(f"BOS {' '.join(words)} EOS\tO {' '.join(names)} intent")
    assert ours.encode(words, tags) == ids
    truth, answer = encoder.decode(ids), encoder.decode(path)
    assert (ours.decode(ids), ours.decode(path)) == (" ".join(truth.split()), " ".join(answer.split()))
    f1 = slots.type_f1([ours.decode(ids)], [ours.decode(path)]).item()
    assert f1 == pytest.approx(theirs.slot_type_f1([answer], [truth]))
    if set(names) != {"O"}:
        errors, length = cer(ours.decode(ids), ours.decode(path))
        assert errors / length == pytest.approx(theirs.slot_value_cer([answer], [truth]))
