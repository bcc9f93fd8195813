"""What a table consists of, before it takes any form: every form prints the same board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from superb_eval.results.stats.intervals import Difference

PAPER_ORDER = ("pr", "asr", "ks", "qbe", "sid", "asv", "sd", "ic", "sf", "er")
"""Tasks in the column order of the papers; others follow by name."""

Place = tuple[str, str]
"""(task, key of the metric); the task is empty for what belongs to the upstream: its size, speed and overall scores."""

Rank = Literal["", "best", "tied"]
"""`best`: nothing is better, and nothing else is as good; `tied`: the best, or not distinguishable from it."""


@dataclass(frozen=True)
class Column:
    """One column: a metric of a task, or a figure of the upstream itself."""

    place: Place
    heading: str
    unit: str
    higher_is_better: bool | None
    """None where neither direction is better."""
    decimals: int = 2

    def title(self) -> str:
        """Return the heading with task, unit and arrow, such as `PR PER % ↓`."""
        arrow = {True: "↑", False: "↓", None: ""}[self.higher_is_better]
        return " ".join(word for word in (self.place[0].upper(), self.heading, self.unit, arrow) if word)

    def shown(self, value: float) -> str:
        """Return a value of this column as it is printed."""
        return f"{value:.{self.decimals}f}"


@dataclass(frozen=True)
class Cell:
    """One cell. `low` and `high` bound its 95 % interval; None where there is none.

    `seeds` counts the runs whose mean it is, `spread` is their standard deviation. `difference` is from the reference.
    """

    value: float
    low: float | None = None
    high: float | None = None
    seeds: int = 1
    spread: float | None = None
    marks: str = ""
    difference: Difference | None = None
    rank: Rank = ""

    def texts(self, column: Column) -> tuple[str, str, str]:
        """Return what is printed: the value with its marks, its interval and spread, the difference; or nothing."""
        interval = "" if self.low is None or self.high is None else _bounds(column, self.low, self.high)
        spread = "" if self.spread is None else f"± {column.shown(self.spread)} ({self.seeds} seeds)"
        tied = "=" if self.rank == "tied" else ""
        value = f"{column.shown(self.value)}{tied}{self.marks}"
        return value, " ".join(filter(None, (interval, spread))), self._difference(column)

    def _difference(self, column: Column) -> str:
        if self.difference is None:
            return ""
        value = f"Δ {self.difference.value:+.{column.decimals}f}"
        if not self.difference.tested:  # such as of two published figures, or from one
            return value
        mark = "≠" if self.difference.distinguishable else "≈"
        return f"{value} {_bounds(column, self.difference.low, self.difference.high)} {mark}"


def _bounds(column: Column, low: float, high: float) -> str:
    return f"[{column.shown(low)}, {column.shown(high)}]"


@dataclass(frozen=True)
class Row:
    """One row: an upstream that was measured, or a system that was published (then `source` says where)."""

    name: str
    figures: Mapping[Place, Cell]
    published: bool = False
    source: str = ""
    runs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The folders of the runs behind each task."""


@dataclass(frozen=True)
class ResultTable:
    """One table: upstreams down, tasks across. `notes` is all that has to be known to read it, a sentence each."""

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Row, ...]
    notes: tuple[str, ...]
    reference: str | None = None

    def figure(self, name: str, place: Place) -> Cell | None:
        """Return a figure of the line of that name, None where there is a gap."""
        return next((line.figures.get(place) for line in self.lines if line.name == name), None)


def order_of(task: str) -> tuple[int, str]:
    """Return the sort key that puts tasks in the papers' order."""
    return (PAPER_ORDER.index(task) if task in PAPER_ORDER else len(PAPER_ORDER), task)
