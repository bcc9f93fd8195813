"""Bounds of settings: what lies far beyond every experiment is refused before time or memory is spent on it."""

from __future__ import annotations

from collections.abc import Sized
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError


def at_most(most: float, why: str) -> AfterValidator:
    """Return a validator that refuses numbers above `most`, with the reason in words."""

    def check(value: float) -> float:
        if value > most:
            raise PydanticCustomError("at_most", "at most {most} is allowed: {why}", {"most": most, "why": why})
        return value

    return AfterValidator(check)


def at_most_items(most: int, why: str) -> AfterValidator:
    """Return a validator that refuses lists of more than `most` items, with the reason in words."""

    def check(value: Sized) -> Sized:
        if len(value) > most:
            context = {"count": len(value), "most": most, "why": why}
            raise PydanticCustomError("too_many", "it has {count} items, at most {most} are allowed: {why}", context)
        return value

    return AfterValidator(check)


MOST_SEED = 2**32 - 1

Seed = Annotated[int, Field(ge=0), at_most(MOST_SEED, "numpy and scikit-learn take seeds of 32 bits")]
Updates = Annotated[int, Field(ge=1), at_most(10**8, "the longest trainings have a few million updates")]
BatchCount = Annotated[int, at_most(10**4, "the largest trainings add up a few hundred batches")]
BatchSize = Annotated[int, Field(ge=1), at_most(10**5, "a batch lies in memory as a whole")]
Rate = Annotated[float, Field(gt=0), at_most(1e30, "float32 holds no weight that such a learning rate leaves")]
Seconds = Annotated[float, at_most(86_400, "a day of audio doesn't fit into memory")]
LayerIndex = Annotated[int, Field(ge=-1000), at_most(1000, "no encoder has so many layers")]
StateIndex = Annotated[LayerIndex, Field(ge=0)]
"""Of a hidden state, 0 the input of the first layer."""
Depth = Annotated[int, at_most(200, "the deepest speech encoders have 48 layers")]
Width = Annotated[int, Field(ge=1), at_most(2**16, "the widest layers of speech encoders have some 8 000")]
Count = Annotated[int, at_most(10**6, "no corpus asks for more")]
Weight = Annotated[float, Field(ge=-1e9, le=1e9)]
Tries = Annotated[int, Field(ge=1), at_most(1000, "each takes as long as the first")]
VocabularySize = Annotated[int, at_most(10**5, "no text has so many pieces of words")]
Hypotheses = Annotated[int, Field(ge=1), at_most(10**4, "each is extended at every frame")]
BatchFrames = Annotated[int, Field(ge=1), at_most(10**7, "a batch lies in memory as a whole")]
