"""Slots in a line of text, marked as `B-city PARIS E-city`, and their metrics (s3prl `ctc/metric.py`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from downstreams.metrics.error_rate import Edits, character_edits

_SLOT = re.compile(r"B-(\S+) (.+?) E-\1")


def extract_slots(marked: str) -> dict[str, list[str]]:
    """Return the values of each slot type, in order: the nearest pairs of marks, other marks inside left out."""
    slots: dict[str, list[str]] = {}
    for name, value in _SLOT.findall(re.sub(" +", " ", marked)):
        slots.setdefault(name, []).append(_remove_marks(value))
    return slots


def type_f1(truths: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
    """Return the F1 [lines] between the sets of slot types of each pair of lines; 1 where both have none."""
    pairs = zip(truths, answers, strict=True)
    return np.array([set_f1(set(extract_slots(truth)), set(extract_slots(answer))) for truth, answer in pairs])


def set_f1(truth: set[str], answer: set[str]) -> float:
    """Return 2 PR / (P + R) of two sets, which is 2 |both| / (|truth| + |answer|); 1 where both are empty."""
    total = len(truth) + len(answer)
    return 2 * len(truth & answer) / total if total else 1.0


def value_edits(truths: Sequence[str], answers: Sequence[str]) -> Edits:
    """Return edits and lengths [lines], in characters, of the values that the truths hold.

    Each is compared with the nearest value of its type in the answer, which may serve again, or with nothing where the
    type is missing. What else the answer holds costs nothing.
    """
    pairs = [
        (line, value, other)
        for line, (truth, answer) in enumerate(zip(truths, answers, strict=True))
        for value, other in _paired(extract_slots(truth), extract_slots(answer))
    ]
    lines = np.array([line for line, _, _ in pairs], dtype=np.intp)
    edits = character_edits([value for _, value, _ in pairs], [other for _, _, other in pairs])
    summed = (np.bincount(lines, weights=column, minlength=len(truths)).astype(np.float64) for column in edits)
    return Edits(*summed)


def _paired(truth: dict[str, list[str]], answer: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(value, _nearest(value, answer.get(name, [""]))) for name, values in truth.items() for value in values]


def _nearest(value: str, others: Sequence[str]) -> str:
    if len(others) == 1:
        return others[0]
    return others[int(character_edits([value] * len(others), others).errors.argmin())]


def _remove_marks(value: str) -> str:
    """Drop the marks inside a value: those that begin a slot first, with the space after them, then those that end."""
    return re.sub(r" E-\S+", "", re.sub(r"B-\S+ ", "", value))
