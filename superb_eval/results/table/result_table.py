"""What a result table consists of, before it is formatted: every format prints the same cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from superb_eval.results.stats.differences import Difference

ColumnKey = tuple[str, str]
"""(task, key of the metric); the task is empty for what belongs to the upstream: its size, speed and overall scores."""

Rank = Literal["", "best", "tied"]
"""`best`: nothing is better, and nothing else is as good; `tied`: the best, or not distinguishable from it."""


AT_CHANCE = "°"
"""After a figure that is not above chance."""

UNKNOWN = "?"
"""After a difference that can't be tested, since the variance of training is unknown."""


@dataclass(frozen=True)
class Column:
    """One column: a metric of a task, or a property of the upstream itself."""

    key: ColumnKey
    heading: str
    unit: str
    higher_is_better: bool | None
    """None where neither direction is better."""
    decimals: int = 2

    def title(self) -> str:
        """Return the heading with task, unit and arrow, such as `PR PER % ↓`."""
        arrow = {True: "↑", False: "↓", None: ""}[self.higher_is_better]
        return " ".join(word for word in (self.key[0].upper(), self.heading, self.unit, arrow) if word)

    def format(self, value: float) -> str:
        """Return a value of this column as it is printed."""
        return f"{value:.{self.decimals}f}"


@dataclass(frozen=True)
class Cell:
    """One cell. `low` and `high` bound its 95 % interval; None where there is none.

    `population` is what the interval is for (`stats.resampling`); `training` is the standard deviation of `value`
    between trainings that is in it, None where that is unknown and left out. `seeds` counts the runs that `value` is
    the mean of, `spread` is their standard deviation. `difference` is from the reference. `marks` are those of
    `footnotes`. `at_chance`: the task's first metric is not above chance beyond its interval, so that none of the
    task's figures is ranked.
    """

    value: float
    low: float | None = None
    high: float | None = None
    seeds: int = 1
    spread: float | None = None
    population: str = ""
    training: float | None = None
    marks: str = ""
    difference: Difference | None = None
    rank: Rank = ""
    at_chance: bool = False

    def brief(self) -> Cell:
        """Return the cell without its interval, spread and difference."""
        return replace(self, low=None, high=None, spread=None, difference=None)

    def better_than_reference(self, column: Column) -> bool | None:
        """Return whether the value is better or worse than the reference's; None: that isn't distinguishable."""
        difference = self.difference
        if difference is None or not difference.distinguishable or column.higher_is_better is None:
            return None
        return (difference.value > 0) == column.higher_is_better

    def texts(self, column: Column) -> tuple[str, str, str]:
        """Return what is printed: the value with its marks, its interval and spread, the difference; or nothing."""
        interval = "" if self.low is None or self.high is None else _brackets(column, self.low, self.high)
        spread = "" if self.spread is None else f"± {column.format(self.spread)} ({self.seeds} seeds)"
        tied = "=" if self.rank == "tied" else ""
        value = f"{column.format(self.value)}{tied}{self.marks}{AT_CHANCE if self.at_chance else ''}"
        return value, " ".join(filter(None, (interval, spread))), self._difference_text(column)

    def _difference_text(self, column: Column) -> str:
        if self.difference is None:
            return ""
        value = f"Δ {self.difference.value:+.{column.decimals}f}"
        if not self.difference.tested:  # such as between two published systems, or from one
            return value
        mark = UNKNOWN if self.difference.p is None else "≠" if self.difference.distinguishable else "≈"
        return f"{value} {_brackets(column, self.difference.low, self.difference.high)} {mark}"


def _brackets(column: Column, low: float, high: float) -> str:
    return f"[{column.format(low)}, {column.format(high)}]"


@dataclass(frozen=True)
class Row:
    """One row: an upstream that was measured, or a system that was published (then `source` is the publication)."""

    name: str
    cells: Mapping[ColumnKey, Cell]
    published: bool = False
    source: str = ""
    runs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The folders of the runs behind each task."""


@dataclass(frozen=True)
class ResultTable:
    """One table: upstreams down, tasks across. `notes` are the captions: what has to be known to read it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    reference: str | None = None
    label: str = ""
    """Identifies the table in a document: corpus, profile, protocol."""

    def brief(self) -> ResultTable:
        """Return the table without intervals, spreads and differences."""
        rows = [replace(row, cells={key: cell.brief() for key, cell in row.cells.items()}) for row in self.rows]
        return replace(self, rows=tuple(rows))

    def cell(self, name: str, key: ColumnKey) -> Cell | None:
        """Return a cell of the row of that name, None where there is a gap."""
        return next((row.cells.get(key) for row in self.rows if row.name == name), None)
