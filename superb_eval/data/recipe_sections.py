"""The schema of recipe sections: their base class, the corpus settings of all tasks, and validation messages."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from superb_eval.errors import near_miss

MOST_ERRORS = 12
"""Of one recipe in a message: a list of a thousand wrong values has as many."""

_SHORT = reprlib.Repr()
"""Values in messages, of which some are nested by the thousand."""
_SHORT.maxstring = _SHORT.maxother = 200


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, and numbers that are infinite or none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CorpusSettings(Section):
    """How the corpus of any task is read; a task adds keys of its own (`BaseTask.CorpusSchema`)."""

    folder: str | None = Field(None, description="folder of the manifests, where its name isn't the task's")
    allow_links: bool | None = Field(
        None,
        description="false: refuse audio that links lead to outside a corpus of manifests; left out: it is read, and "
        "counted in the record",
    )
    gain_db: float = Field(
        0.0,
        ge=-200,
        le=200,
        description="gain applied to every clip, in dB; the protocol applies -3 in KS, QbE and ASV",
    )
    trim_silence: bool = Field(
        False, description="remove silence as sox's `silence 1 0.1 0.1% -1 0.1 0.1%` does, as in the ASV protocol"
    )


def explain(
    path: Path,
    error: ValidationError,
    schema: type[BaseModel],
    sections: Mapping[str, type[BaseModel]] | None = None,
    prefix: str = "",
) -> str:
    """Return a sentence for each error in the validation of a file, at most for `MOST_ERRORS`.

    `sections` are the schemas of the sections that depend on the task; `prefix` is prepended to each key.
    """
    errors = error.errors()
    lines = [f"{path}: {_error_message(details, schema, sections or {}, prefix)}" for details in errors[:MOST_ERRORS]]
    more = [f"{path}: and {len(errors) - MOST_ERRORS} more"] if len(errors) > MOST_ERRORS else []
    return "\n".join([*lines, *more])


def _error_message(details: Any, schema: type[BaseModel], sections: Mapping[str, type[BaseModel]], prefix: str) -> str:
    """Return one sentence for one error that pydantic reports."""
    location = [str(part) for part in details["loc"]]
    unknown = location[-1:] if details["type"] == "extra_forbidden" else []
    # Names of a union's variants, such as "one rate", have spaces; keys don't, unless they are unknown.
    known = [part for part in location[: len(location) - len(unknown)] if " " not in part]
    key = prefix + ".".join(known + unknown)
    if details["type"] == "extra_forbidden":
        keys = _keys(schema, sections, details["loc"][:-1])
        return f"unknown key '{key}'.{near_miss(str(details['loc'][-1]), keys)} Known here: {', '.join(keys)}."
    if details["type"] == "missing":
        return f"'{key}' is missing; write it in the recipe or give -o {key}=VALUE."
    if details["type"] == "value_error" and not key:  # a rule on the whole file: its message names the keys
        return f"{details['msg'].removeprefix('Value error, ')}."
    return f"'{key}' is {_SHORT.repr(details['input'])[:200]}: {details['msg'][0].lower()}{details['msg'][1:]}."


def _keys(schema: type[BaseModel], sections: Mapping[str, type[BaseModel]], location: Sequence[Any]) -> list[str]:
    """Return the keys of the schema at a location of nested sections."""
    for part in location:
        if isinstance(part, int) or " " in part:  # an item or a variant: its schema is in the annotation around it
            continue
        inner = next(_schemas(sections.get(part) or schema.model_fields[str(part)].annotation), None)
        if inner is None:
            return []
        schema, sections = inner, {}
    return list(schema.model_fields)


def _schemas(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the schemas in an annotation: of a section, of a list's items, of a union's variants."""
    if issubclass(type(annotation), type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _schemas(inner)
