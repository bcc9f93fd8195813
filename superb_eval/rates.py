"""Learning rates known to have worked, with their sources: the hidden parameter of every published figure."""

from __future__ import annotations

import csv
from dataclasses import dataclass

from superb_eval import recipe


@dataclass(frozen=True)
class KnownRate:
    """A learning rate that somebody reported for an upstream and a task; `figure` is what it gave, where told."""

    upstream: str
    task: str
    lr: float
    figure: str
    source: str

    def __str__(self) -> str:
        gave = f" gave {self.figure}" if self.figure else ""
        return f"{self.upstream} on {self.task}: lr {self.lr:g}{gave} ({self.source})"


def known(task: str) -> list[KnownRate]:
    """Return what is known for a task, from `recipes/rates.csv`."""
    with (recipe.folder() / recipe.RATES).open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        KnownRate(row["upstream"], row["task"], float(row["lr"]), row["figure"], row["source"])
        for row in rows
        if row["task"] == task
    ]
