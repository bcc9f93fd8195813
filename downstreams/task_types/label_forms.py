"""The forms that labels have in a run's `labels.json` (`TrainedTask.learn`), which somebody may have edited."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

Classes = Annotated[
    list[Annotated[str, Field(max_length=10_000)]],
    Field(min_length=1, max_length=1_000_000),
]
"""The names of a head's outputs, in their order."""

SlotClasses = Annotated[dict[str, Classes], Field(min_length=1, max_length=1000)]
"""The classes of each slot."""

SpeakerCount = Annotated[int, Field(ge=1, le=20)]


class CharacterLabels(TypedDict):
    """The outputs of a speller that writes characters."""

    characters: Classes


class PieceLabels(TypedDict):
    """The SentencePiece model of a speller that writes subwords, as base64."""

    sentencepiece: str


class CharactersAndSlots(CharacterLabels):
    """A speller's outputs, and the slots that it marks."""

    slots: Classes


class PiecesAndSlots(PieceLabels):
    """A speller's model, and the slots that it marks."""

    slots: Classes


Spelling = CharacterLabels | PieceLabels
SpellingWithSlots = CharactersAndSlots | PiecesAndSlots
