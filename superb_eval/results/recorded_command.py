"""The command in a run's record: which task, corpus and overrides the run was started with; how others may see it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.results.record import RunRecord


@dataclass(frozen=True)
class RecordedCommand:
    """A task or recipe file, the folder of the corpus (None: the embedded one), and overrides of the recipe."""

    task: str
    data: Path | None
    overrides: tuple[str, ...]


def parse_command(record: RunRecord) -> RecordedCommand:
    """Parse a record's command.

    Raises:
        UserError: it is no command of `superb-eval run`.
    """
    try:
        words = shlex.split(record.command)
        options = list(pairwise(words))
        data = next((after for before, after in options if before == "--data"), None)
        overrides = tuple(after for before, after in options if before == "-o")
        return RecordedCommand(words[2], Path(data) if data else None, overrides)
    except (ValueError, IndexError) as error:
        raise UserError(f"the command in its record can't be read: {record.command!r}") from error


def without_folders(word: str) -> str:
    """Return a word of a command with an absolute path in it cut to its last part: the rest names folders of one
    machine."""
    return re.sub(r"(?<![\w/.])~?/(?!/)(?:[^/#]*/)*(?=[^/])", "", word)


def shareable(command: str) -> str:
    """Return a command as others may see it, its words cut by `without_folders`.

    Raises:
        UserError: its quotes don't match.
    """
    try:
        return shlex.join(map(without_folders, shlex.split(command)))
    except ValueError as error:
        raise UserError(f"the command in a record can't be read: {command!r}") from error
