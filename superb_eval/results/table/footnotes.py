"""Marks beside a figure: what sets its runs apart from the others of the column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from superb_eval.errors import UserError
from superb_eval.results import code_versions
from superb_eval.results.folder import RunGroups
from superb_eval.results.record import RunRecord, UpstreamRecord
from superb_eval.results.recorded_command import parse_command

MEANINGS = {
    "*": "* several finished runs; the newest of each seed is shown.",
    "§": "§ other data than most of its column: not comparable with it.",
    "‡": "‡ another recipe than most of its column's.",
    "‖": "‖ computed by an earlier version of its task, whose figures differ: run it again with --fresh.",
    "◊": "◊ other weights than the newest run of its row, which has that name too: run it again with --fresh.",
    "¶": "¶ a changed recipe",
}

HARMLESS = ("train.lr", "features.batch_seconds", "features.pooled")
"""Overrides that leave the protocol as it is: published learning rates were searched too, and the rest is rounding."""


def footnote_marks(upstream: str, task: str, groups: RunGroups) -> str:
    """Return the marks of an upstream's figures on a task; empty where nothing sets its runs apart."""
    group = groups[upstream, task]
    column = [other.record for (_, t), other in groups.items() if t == task]
    data = Counter(record.corpus.digest for record in column).most_common(1)[0][0]
    recipe = Counter(record.recipe_digest for record in column).most_common(1)[0][0]
    row = [other.record for (name, _), other in groups.items() if name == upstream]
    applies = {
        "*": group.others > 0,
        "§": group.record.corpus.digest != data,
        "‡": group.record.recipe_digest != recipe,
        "‖": code_versions.is_outdated(group.record.code, task),
        "◊": _other_weights(group.record.upstream, max(row, key=lambda record: record.started).upstream),
        "¶": bool(overridden_keys(group.record)),
    }
    return "".join(mark for mark, applicable in applies.items() if applicable)


def _other_weights(one: UpstreamRecord, other: UpstreamRecord) -> bool:
    """Return whether two upstreams of one name differ: in size, or in weights that both records state."""
    weights = {upstream.identity["weights"] for upstream in (one, other) if upstream.identity.get("weights")}
    return one.parameters != other.parameters or len(weights) > 1


def overridden_keys(record: RunRecord) -> list[str]:
    """Return what a run changed of its shipped recipe: keys given with -o, or the file that was given instead."""
    try:
        command = parse_command(record)
    except UserError:
        return ["a command that can't be read"]
    keys = (override.partition("=")[0].strip() for override in command.overrides)
    return [key for key in keys if key not in HARMLESS] + list(_own_recipe(command.task, record))


def _own_recipe(task: str, record: RunRecord) -> Iterator[str]:
    shipped = f"recipes/{record.profile}/{record.task}.yaml"
    if task.endswith((".yaml", ".yml")) and not task.replace("\\", "/").endswith(shipped):
        yield f"recipe {task}"
