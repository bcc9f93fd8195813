"""What sets a cell apart from the others of its column, as a mark beside its figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from superb_eval.errors import UserError
from superb_eval.results.folder import RunGroup
from superb_eval.results.record import RunRecord
from superb_eval.results.recorded_command import asked

MEANINGS = {
    "*": "* several finished runs; the newest of each seed is shown.",
    "§": "§ other data than most of its column: not comparable with it.",
    "‡": "‡ another recipe than most of its column's.",
    "¶": "¶ a changed recipe",
}

HARMLESS = ("train.lr", "features.batch_seconds", "features.pooled")
"""Overrides that leave the protocol as it is: published learning rates were searched too, and the rest is rounding."""


def footnotes_of(upstream: str, task: str, cells: Mapping[tuple[str, str], RunGroup]) -> str:
    """Return a cell's marks."""
    cell = cells[upstream, task]
    column = [other.record for (_, t), other in cells.items() if t == task]
    data = Counter(record.corpus.digest for record in column).most_common(1)[0][0]
    recipe = Counter(record.recipe_digest for record in column).most_common(1)[0][0]
    found = {
        "*": cell.others > 0,
        "§": cell.record.corpus.digest != data,
        "‡": cell.record.recipe_digest != recipe,
        "¶": bool(overrides_of(cell.record)),
    }
    return "".join(mark for mark, holds in found.items() if holds)


def overrides_of(record: RunRecord) -> list[str]:
    """Return what a run changed of its shipped recipe: keys given with -o, or the file that took its place."""
    try:
        given = asked(record)
    except UserError:
        return ["a command that can't be read"]
    keys = (override.partition("=")[0].strip() for override in given.overrides)
    return [key for key in keys if key not in HARMLESS] + list(_own_recipe(given.task, record))


def _own_recipe(task: str, record: RunRecord) -> Iterator[str]:
    shipped = f"recipes/{record.profile}/{record.task}.yaml"
    if task.endswith((".yaml", ".yml")) and not task.replace("\\", "/").endswith(shipped):
        yield f"recipe {task}"
