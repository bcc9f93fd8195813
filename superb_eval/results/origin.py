"""Where a run of a merged results folder came from: `origin.json` beside its record (`superb_eval.results.merge`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from superb_eval.errors import UserError
from superb_eval.results import run_files
from superb_eval.results.formats import escape
from superb_eval.results.record import RecordPart, format_error
from superb_eval.runtime import atomic_files

NAME = "origin.json"


class Origin(RecordPart):
    """Who made a run, in which results folder, and when it was merged."""

    contributor: str = Field(description="who made the run: the NAME of `superb-eval merge NAME=FOLDER`")
    folder: str = Field(description="name of the results folder that the run was copied from")
    merged: str = Field(description="when it was copied, ISO 8601, UTC")
    record: str = Field(description="SHA-256 of the run's result.json")

    def __str__(self) -> str:
        return f"by {self.contributor}, from {self.folder}, merged {self.merged[:10]}"


def write(origin: Origin, folder: Path) -> None:
    """Write the origin of a run into its folder, atomically."""
    atomic_files.write_text(folder / NAME, origin.model_dump_json(indent=2) + "\n")


def read(folder: Path) -> Origin | None:
    """Return the origin of a run; None where it was made in its results folder.

    Raises:
        UserError: the file is damaged.
    """
    if not run_files.exists(folder, NAME):
        return None
    try:
        return Origin.model_validate_json(run_files.read_bytes(folder, NAME))
    except ValidationError as error:
        raise UserError(
            f"{folder / NAME}: does not name an origin: {format_error(error)}. Merge the run again."
        ) from error


def contributors(folders: Iterable[Path]) -> str:
    """Return how many of these runs each contributor made, such as `anna 2, ben 1`; empty where none is known."""
    found = [origin.contributor for folder in folders if (origin := read_valid(folder))]
    return ", ".join(f"{escape.short(name)} {count}" for name, count in sorted(Counter(found).items()))


def read_valid(folder: Path) -> Origin | None:
    """Return the origin of a run; None where it has none, or a damaged one, which `verify` reports."""
    try:
        return read(folder)
    except UserError:
        return None
