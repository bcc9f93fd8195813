"""Decides which splits of a source become train, dev and test, before anything in them is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from superb_eval.corpora.building.new_row import DIVIDED
from superb_eval.corpora.building.request import CorpusRequest
from superb_eval.data.importers.columns import split_candidates
from superb_eval.errors import UserError, near_miss

FOLD_NAMES = re.compile(r"(?:session|fold)[ _-]?(?:\d+|[a-z])", re.IGNORECASE)
"""Splits that are folds of a cross-validation: `session1`, `fold_2`."""


@dataclass(frozen=True)
class SplitPlan:
    """Which splits of the source are read. `parts` are those of train, dev and test; empty: all are divided anew.

    `folds` states that the source's splits are folds. `notes` are sentences for the summary.
    """

    parts: dict[str, tuple[str, ...]]
    names: tuple[str, ...]
    folds: bool = False
    notes: tuple[str, ...] = ()


def plan_splits(names: Sequence[str], request: CorpusRequest) -> SplitPlan:
    """Return the plan for a source with splits of these names ([""]: undivided).

    Raises:
        UserError: the splits' names leave open which is which; the message names the options that decide it.
    """
    folds = len(names) > 1 and all(FOLD_NAMES.fullmatch(name) for name in names)
    if request.task == "er" and folds and not request.divides():
        return SplitPlan({}, tuple(names), folds=True, notes=(f"folds: the source's {', '.join(names)}",))
    if not request.splits and (request.shares or len(names) == 1):
        return SplitPlan({}, tuple(names))
    parts = _named(names, request) if request.splits else _recognised(names)
    if len(parts) == 1:
        return SplitPlan({}, parts["train"], notes=(f"divided: the source's {'+'.join(parts['train'])}",))
    used = [name for chosen in parts.values() for name in chosen]
    notes = ["splits: the source's own, " + ", ".join(f"{name}={'+'.join(chosen)}" for name, chosen in parts.items())]
    unused = [name for name in names if name not in used]
    notes += [f"splits that are not used: {', '.join(unused)}"] if unused else []
    return SplitPlan(parts, tuple(used), notes=tuple(notes))


def _named(names: Sequence[str], request: CorpusRequest) -> dict[str, tuple[str, ...]]:
    used = [name for chosen in request.splits.values() for name in chosen]
    for name in used:
        if name not in names:
            raise UserError(
                f"{request.source}: has no split '{name}' (found: {', '.join(names)}).{near_miss(name, names)}"
            )
        if used.count(name) > 1:
            raise UserError(f"--splits: {name} is named {used.count(name)} times; its rows belong to one split.")
    return {name: request.splits[name] for name in DIVIDED if name in request.splits}


def _recognised(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    candidates = split_candidates(names)
    found = {name: chosen for name, chosen in candidates.items() if chosen}
    several = [f"{name} may be {' or '.join(chosen)}" for name, chosen in found.items() if len(chosen) > 1]
    if several or "train" not in found or len(found) == 1:
        reason = "; ".join(several) or f"{', '.join(names)} are not recognised as train, dev and test"
        example = ",".join(f"{name}={'+'.join(candidates[name] or ['NAME'])}" for name in DIVIDED)
        raise UserError(
            f"the source's splits leave open which is which: {reason}. Name them, joining several with '+': "
            f"--splits {example}, or divide all rows anew: --shares 80,10,10"
        )
    return {name: (found[name][0],) for name in DIVIDED if name in found}
