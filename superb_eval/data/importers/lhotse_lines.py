"""Lines of Lhotse's manifests with their types; keys that are not read are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Seconds = Annotated[float, Field(allow_inf_nan=False)]

Channel = int | list[int] | None


class _LhotseValue(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


class _LhotseLine(_LhotseValue):
    id: str


class LhotseSource(_LhotseValue):
    """Where a recording's audio lies."""

    type: str
    channels: list[int] = [0]
    source: str = ""


class LhotseRecording(_LhotseLine):
    """A recording; `transforms` are what Lhotse would do to its audio."""

    sources: Annotated[list[LhotseSource], Field(min_length=1)]
    duration: Annotated[Seconds, Field(gt=0)]
    transforms: list[Any] | None = None


class LhotseSegment(_LhotseLine):
    """What supervisions and cuts have in common; `start` and `duration` are in seconds."""

    start: Seconds
    duration: Seconds
    channel: Channel = 0
    custom: dict[str, Any] | None = None


class LhotseSupervision(LhotseSegment):
    """A segment of a recording, or of a cut, with what is spoken there."""

    recording_id: str = ""
    text: str | None = None
    language: str | None = None
    gender: str | None = None
    speaker: str | None = None


class LhotseCut(LhotseSegment):
    """A segment of a recording with its supervisions."""

    supervisions: list[LhotseSupervision] | None = None
    recording: LhotseRecording | None = None


Parsed = TypeVar("Parsed", bound=_LhotseLine)


def parse(schema: type[Parsed], content: Mapping[str, Any]) -> Parsed | str:
    """Return a line of the schema, or a sentence on the first of its values that isn't."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        return f"{key} is {repr(first['input'])[:80]}: {first['msg'][0].lower()}{first['msg'][1:]}"
