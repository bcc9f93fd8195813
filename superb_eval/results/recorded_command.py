"""What a run was asked for, by the command that its record keeps."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.results.record import RunRecord


@dataclass(frozen=True)
class Asked:
    """A task or recipe file, the folder of the corpus (None: the embedded one), and overrides of the recipe."""

    task: str
    data: Path | None
    overrides: tuple[str, ...]


def asked(record: RunRecord) -> Asked:
    """Take a record's command apart.

    Raises:
        UserError: it is no command of `superb-eval run`.
    """
    try:
        words = shlex.split(record.command)
        options = list(pairwise(words))
        data = next((after for before, after in options if before == "--data"), None)
        overrides = tuple(after for before, after in options if before == "-o")
        return Asked(words[2], Path(data) if data else None, overrides)
    except (ValueError, IndexError) as error:
        raise UserError(f"the command in its record can't be read: {record.command!r}") from error
