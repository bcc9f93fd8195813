"""The first thing a reader wants to know: which upstream is better, by how much, beyond chance or not, at what cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from superb_eval.report.charts import comparison, svg
from superb_eval.results.folder import RunGroup
from superb_eval.results.table import costs, totals
from superb_eval.results.table.result_table import Cell, Column, ResultTable, Row

Cells = Mapping[tuple[str, str], RunGroup]


@dataclass(frozen=True)
class Standing:
    """How one upstream stands: against the reference, against chance, and what it costs. All as text."""

    name: str
    reference: bool
    best: int
    metrics: int
    better: tuple[str, ...]
    unclear: tuple[str, ...]
    worse: tuple[str, ...]
    overall: tuple[str, ...]
    cost: tuple[str, ...]
    at_chance: tuple[str, ...]
    keeps: str = ""
    """What it keeps of the reference's overall figure and parameters, to end a sentence with."""

    @property
    def compared(self) -> int:
        """How many metrics have a paired difference."""
        return len(self.better) + len(self.unclear) + len(self.worse)

    def bar(self) -> Markup:
        """Return the counts of better, unclear and worse as a bar."""
        parts, x = [], 0.0
        for kind, names in (("better", self.better), ("unclear", self.unclear), ("worse", self.worse)):
            for name in names:
                told = svg.tag("title", f"{name}: {WORDS[kind]}")
                parts.append(svg.tag("rect", told, x=x, y=1, width=12, height=12, class_=f"effect {kind}"))
                x += 14
        return svg.tag(
            "svg", *parts, viewBox=f"0 0 {max(14, int(x))} 14", width=max(14.0, x), height=14, aria_hidden="true"
        )


WORDS = {"better": "better beyond chance", "unclear": "not distinguishable", "worse": "worse beyond chance"}


def standings(board: ResultTable, cells: Cells) -> list[Standing]:
    """Return how the measured upstreams stand, in the order of the table."""
    return [_standing(board, line, cells) for line in board.lines if not line.published]


def headline(board: ResultTable, found: Sequence[Standing]) -> Iterator[str]:
    """Yield the answer in sentences."""
    if len(found) == 1:
        yield f"One upstream was measured, {found[0].name}: there is nothing to compare it with."
        return
    if not found:
        yield "Nothing was measured here: these are published figures."
        return
    first = max(found, key=lambda s: s.best)
    if not first.best:
        yield "No two upstreams were run on the same task and data: nothing can be compared yet."
        return
    yield f"{first.name} is best, or not distinguishable from the best, in {first.best} of {first.metrics} metrics."
    for standing in found:
        if standing.compared:
            yield _against(standing, board.reference or "")


def _against(s: Standing, reference: str) -> str:
    counts = (
        f"better beyond chance in {len(s.better)}, worse in {len(s.worse)}, not distinguishable in {len(s.unclear)}"
    )
    return f"{s.name} against {reference}: {counts} of {s.compared} metrics{s.keeps}."


def _standing(board: ResultTable, line: Row, cells: Cells) -> Standing:
    kinds: dict[str, list[str]] = {"better": [], "unclear": [], "worse": []}
    for column in comparison.tasks_of(board):
        figure = line.figures.get(column.place)
        if figure and figure.difference and figure.difference.tested:
            better = (figure.difference.value > 0) == column.higher_is_better
            kind = "unclear" if not figure.difference.distinguishable else "better" if better else "worse"
            kinds[kind].append(f"{column.place[0].upper()} {column.heading}")
    ranked = {p for other in board.lines for p, figure in other.figures.items() if figure.rank}
    there = [c for c in comparison.tasks_of(board) if c.place in line.figures and c.place in ranked]
    return Standing(
        name=line.name,
        reference=line.name == board.reference,
        best=sum(line.figures[column.place].rank != "" for column in there),
        metrics=len(there),
        better=tuple(kinds["better"]),
        unclear=tuple(kinds["unclear"]),
        worse=tuple(kinds["worse"]),
        overall=tuple(_shown(line, board.columns, cost=False)),
        cost=tuple(_shown(line, board.columns, cost=True)),
        at_chance=tuple(_at_chance(board, line, cells)),
        keeps=_keeps(line) + _size(board, line),
    )


def _keeps(line: Row) -> str:
    """The share of the overall figure that is kept, of superb_s where there is one."""
    for total, kept in totals.KEEPS.items():
        figure = line.figures.get(kept.place)
        if figure:
            return f"; it keeps {kept.shown(figure.value)} % of the reference's {total.heading}"
    return ""


def _size(board: ResultTable, line: Row) -> str:
    own, other = (board.figure(name, costs.PARAMETERS.place) for name in (line.name, board.reference or ""))
    if own is None or other is None or not own.value or not other.value:
        return ""
    if own.value == other.value:
        return ", with as many parameters"
    return f", with {100 * own.value / other.value:.0f} % of its parameters"


COSTS = (costs.PARAMETERS.place, costs.MACS.place, costs.SPEED.place)


def _shown(line: Row, columns: Sequence[Column], cost: bool) -> Iterator[str]:
    """What belongs to the upstream itself: its overall figures, or what it costs."""
    for column in columns:
        figure = line.figures.get(column.place)
        if figure and not column.place[0] and (column.place in COSTS) == cost:
            value, interval, difference = figure.texts(column)
            if column == costs.PARAMETERS:
                yield f"{value} M parameters"
            else:
                yield " ".join(filter(None, (column.heading, value, column.unit, interval)))
            if difference:
                yield difference


def _at_chance(board: ResultTable, line: Row, cells: Cells) -> Iterator[str]:
    """Tasks whose interval doesn't leave out what knows nothing."""
    seen = set()
    for column in comparison.tasks_of(board):
        task = column.place[0]
        figure, cell = line.figures.get(column.place), cells.get((line.name, task))
        if figure is None or cell is None or task in seen or cell.record.metrics[0].key != column.place[1]:
            continue
        seen.add(task)
        if cell.record.chance is not None and _reaches(figure, cell.record.chance, bool(column.higher_is_better)):
            yield task.upper()


def _reaches(figure: Cell, chance: float, higher_is_better: bool) -> bool:
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return low <= chance if higher_is_better else high >= chance
