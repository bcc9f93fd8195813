"""A recorded set, read from `recipes/recorded/`: its runs, and the cells and differences of its table."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from superb_eval.errors import UserError, near_miss
from tests.recorded import collecting

Values = Mapping[str, str]

SHARED = "embedded"
"""The set that holds the runs of rows which other sets only compare with."""


@dataclass(frozen=True)
class RecordedSet:
    """The rows of both files of a set."""

    name: str
    runs: tuple[Values, ...]
    cells: tuple[Values, ...]

    @cached_property
    def _by_key(self) -> dict[tuple[str, str, str], Values]:
        return {(c["reference"], c["upstream"], f"{c['task']}.{c['metric']}".lstrip(".")): c for c in self.cells}

    @cached_property
    def upstreams(self) -> tuple[str, ...]:
        """The upstreams of the table."""
        return tuple(dict.fromkeys(cell["upstream"] for cell in self.cells if not cell["reference"]))

    @cached_property
    def metrics(self) -> dict[str, Values]:
        """One cell of each metric of the tasks, by `task.metric`, in the table's order."""
        return {f"{c['task']}.{c['metric']}": c for c in self.cells if c["task"] and not c["reference"]}

    def find(self, upstream: str, metric: str, reference: str = "") -> Values | None:
        """Return a cell: of a metric such as `pr.per` or `mean`; None where the table has a gap.

        Raises:
            UserError: the set has no such upstream or reference.
        """
        for name in (upstream, reference):
            if name and name not in self.upstreams:
                raise UserError(
                    f"{self.name}: the set holds no runs of {name}.{near_miss(name, self.upstreams)} "
                    f"Its upstreams: {', '.join(self.upstreams)}."
                )
        return self._by_key.get((reference, upstream, metric))

    def cell(self, upstream: str, metric: str, reference: str = "") -> Values:
        """Return a cell that has to be there.

        Raises:
            UserError: it is not.
        """
        found = self.find(upstream, metric, reference)
        if found is None:
            against = f" against {reference}" if reference else ""
            raise UserError(f"{self.name}: the set has no {metric} of {upstream}{against}: collect it again.")
        return found


@cache
def read(name: str, folder: Path | None = None) -> RecordedSet:
    """Return a set by its name; runs of upstreams that it has cells of alone are those of the set `SHARED`.

    Raises:
        UserError: there is none of that name.
    """
    folder = folder or collecting.folder()
    if not (folder / f"{name}.runs.csv").is_file():
        known = ", ".join(sorted(path.name.partition(".")[0] for path in folder.glob("*.runs.csv")))
        raise UserError(f"{name}: no recorded set. `python -m tests.recorded collect` makes one; there are: {known}.")
    runs, cells = (_rows(folder / f"{name}.{part}.csv") for part in ("runs", "cells"))
    elsewhere = {cell["upstream"] for cell in cells} - {run["upstream"] for run in runs}
    if not elsewhere or name == SHARED:
        return RecordedSet(name, runs, cells)
    shared = [run for run in read(SHARED, folder).runs if run["upstream"] in elsewhere]
    return RecordedSet(name, (*shared, *runs), cells)


def figures_of(run: Values) -> dict[str, float]:
    """Return a run's strict figures by the metric's key."""
    pairs = (pair.partition("=") for pair in run["figures"].split())
    return {key: float(value) for key, _, value in pairs}


def _rows(path: Path) -> tuple[Values, ...]:
    with path.open(encoding="utf8", newline="") as file:
        return tuple(csv.DictReader(file))
