"""State files of a suite: small JSON in a folder that others may write to, validated field by field when read.

What is no such file (of another version, edited, half of one, a pipe, a folder) counts as damaged.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, AliasChoices, ConfigDict, Field, TypeAdapter, ValidationError

from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files, outside_files

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MOST_BYTES = 2**20
"""Of a state file."""

STRICT = ConfigDict(strict=True)
"""No value is converted: a number in quotes is no number."""

Count = Annotated[int, Field(ge=0, lt=2**63)]

Seconds = Annotated[float, Field(ge=0, lt=1e10)]


def _is_inside(run: str) -> str:
    path = PurePosixPath(run)
    if path.is_absolute() or ".." in path.parts or "\0" in run:
        raise ValueError("leads out of the results folder")
    return run


@dataclass(frozen=True)
class Failure:
    """Why a run failed, and the last lines of its log; `fixable`: the user can fix it, as `message` states.

    `memory_ran_out`: other processes may have used it, so another attempt is worthwhile. Aliases are the keys of
    earlier versions.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    message: Annotated[str, Field(validation_alias=AliasChoices("message", "sentence"))]
    fixable: Annotated[bool, Field(validation_alias=AliasChoices("fixable", "mendable"))]
    host: str
    tail: str = ""
    memory_ran_out: bool = False


@dataclass(frozen=True)
class Receipt:
    """A finished run: `jobs.signature` of its inputs, its folder under the results folder, its figures, the seconds."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    signature: str
    run: Annotated[str, AfterValidator(_is_inside)]
    figures: str
    seconds: Seconds


State = TypeVar("State", bound="DataclassInstance")


@cache
def _adapter(state: type[State]) -> TypeAdapter[State]:
    return TypeAdapter(state)


def parse(state: type[State], content: str | bytes) -> State:
    """Return the state in the text of a file.

    Raises:
        ValueError: it is no such state.
    """
    parsed: State = _adapter(state).validate_json(content)
    return parsed


def load(state: type[State], path: Path) -> State | None:
    """Return the state in a file; None where the file is missing or damaged."""
    try:
        return parse(state, outside_files.read_bytes(path, MOST_BYTES))
    except (UserError, ValidationError):
        return None


def write(path: Path, state: DataclassInstance) -> None:
    """Write a state atomically; what is there in place of a file, such as a pipe or a link, is replaced.

    Raises:
        UserError: the disk is full or may not be written, or there is a folder.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        remove(path)
    atomic_files.write_text(path, dump(state) + "\n")


def dump(state: DataclassInstance) -> str:
    """Return a state as JSON on one line."""
    content: dict[str, Any] = asdict(state)
    return json.dumps({key: str(value) if isinstance(value, Path) else value for key, value in content.items()})


def remove(path: Path) -> None:
    """Remove a state file, if there is one.

    Raises:
        UserError: there is a folder, or it may not be removed.
    """
    if path.is_dir() and not path.is_symlink():
        raise UserError(f"{path}: is a folder where a suite's file belongs. Remove it.")
    with atomic_files.explain_disk_errors(path):
        path.unlink(missing_ok=True)
