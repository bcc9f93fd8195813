"""What a section of a recipe is, the section that all corpora share, and what is wrong with one, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from superb_eval.errors import near_miss


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CorpusSettings(Section):
    """What is read of any task's corpus, and how; a task adds keys of its own (`BaseTask.CorpusSchema`)."""

    folder: str | None = Field(None, description="folder of the manifests, where it isn't called as the task is")
    allow_links: bool = Field(
        False, description="let links in a folder of manifests lead to audio outside it; only for corpora you trust"
    )
    gain_db: float = Field(
        0.0, description="gain applied to every clip, in dB; the protocol plays KS, QbE and ASV at -3"
    )
    trim_silence: bool = Field(
        False, description="drop silence as sox's `silence 1 0.1 0.1% -1 0.1 0.1%` does; the ASV protocol does"
    )


def explain(
    path: Path,
    error: ValidationError,
    schema: type[BaseModel],
    sections: Mapping[str, type[BaseModel]] | None = None,
    prefix: str = "",
) -> str:
    """Return a sentence for each error of a file that was validated by a schema.

    `sections` are the schemas of those sections that depend on the task; `prefix` comes before each key.
    """
    return "\n".join(f"{path}: {_fault(fault, schema, sections or {}, prefix)}" for fault in error.errors())


def _fault(fault: Any, schema: type[BaseModel], sections: Mapping[str, type[BaseModel]], prefix: str) -> str:
    """Return one sentence for one error that pydantic reports."""
    # Names of a union's variants, such as "one rate", have spaces; keys don't.
    where = prefix + ".".join(str(part) for part in fault["loc"] if " " not in str(part))
    if fault["type"] == "extra_forbidden":
        known = _keys(schema, sections, fault["loc"][:-1])
        return f"unknown key '{where}'.{near_miss(str(fault['loc'][-1]), known)} Known here: {', '.join(known)}."
    if fault["type"] == "missing":
        return f"'{where}' is missing; write it in the recipe or give -o {where}=VALUE."
    return f"'{where}' is {repr(fault['input'])[:200]}: {fault['msg'][0].lower()}{fault['msg'][1:]}."


def _keys(schema: type[BaseModel], sections: Mapping[str, type[BaseModel]], location: Sequence[Any]) -> list[str]:
    """Return the keys that the schema has at a place."""
    for part in location:
        if isinstance(part, int):  # one of a list: its schema stands in the list's annotation, which is unpacked below
            continue
        annotation = sections.get(part) or schema.model_fields[str(part)].annotation
        inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not inner:
            return []
        schema, sections = inner[0], {}
    return list(schema.model_fields)
