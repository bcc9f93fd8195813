"""The summary on top of a report: which upstream is better, by how much, beyond chance or not, and at what cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from superb_eval.report import verdicts
from superb_eval.report.markup import tag
from superb_eval.report.verdicts import Verdict, short_name, task_columns
from superb_eval.results.folder import RunGroups
from superb_eval.results.table import costs, totals
from superb_eval.results.table.result_table import Column, ResultTable, Row


@dataclass(frozen=True)
class UpstreamSummary:
    """One upstream against the reference and against chance, and its cost. All as text."""

    name: str
    reference: bool
    best: int
    metrics: int
    better: tuple[str, ...]
    inconclusive: tuple[str, ...]
    worse: tuple[str, ...]
    overall: tuple[str, ...]
    cost: tuple[str, ...]
    at_chance: tuple[str, ...]
    retained: str = ""
    """The % retained of the reference's overall figure, and its size relative to the reference, to end a sentence."""

    @property
    def compared(self) -> int:
        """How many metrics have a paired difference."""
        return len(self.better) + len(self.inconclusive) + len(self.worse)

    @property
    def counts(self) -> str:
        """The counts of better, inconclusive and worse in words; what didn't occur is left out."""
        kinds = {"better": self.better, "inconclusive": self.inconclusive, "worse": self.worse}
        return ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items() if names)

    def bar(self) -> Markup:
        """Return the counts of better, inconclusive and worse as a bar."""
        parts, x = [], 0.0
        kinds: tuple[tuple[Verdict, tuple[str, ...]], ...] = (
            ("better", self.better),
            ("inconclusive", self.inconclusive),
            ("worse", self.worse),
        )
        for kind, names in kinds:
            for name in names:
                hint = tag("title", f"{name}: {verdicts.WORDS[kind]}")
                parts.append(tag("rect", hint, x=x, y=1, width=12, height=12, class_=f"effect {kind}"))
                x += 14
        return tag(
            "svg", *parts, viewBox=f"0 0 {max(14, int(x))} 14", width=max(14.0, x), height=14, aria_hidden="true"
        )


def summaries(table: ResultTable, groups: RunGroups) -> list[UpstreamSummary]:
    """Return the summaries of the measured upstreams, in the order of the table."""
    return [_summary(table, row, groups) for row in table.rows if not row.published]


def headline(table: ResultTable, upstreams: Sequence[UpstreamSummary]) -> Iterator[str]:
    """Yield the comparison in sentences."""
    if len(upstreams) == 1:
        yield f"One upstream was measured, {upstreams[0].name}: there is nothing to compare it with."
        return
    if not upstreams:
        yield "Nothing was measured here: these are published figures."
        return
    first = max(upstreams, key=lambda s: s.best)
    if not first.best:
        yield "No two upstreams were run on the same task and data: nothing can be compared yet."
        return
    yield f"{first.name} is best, or not distinguishable from the best, in {first.best} of {first.metrics} metrics."
    for summary in upstreams:
        if summary.compared:
            yield _against(summary, table.reference or "")


def _against(s: UpstreamSummary, reference: str) -> str:
    counts = f"better beyond chance in {len(s.better)}, worse in {len(s.worse)}, inconclusive in {len(s.inconclusive)}"
    return f"{s.name} against {reference}: {counts} of {s.compared} metrics{s.retained}."


def _summary(table: ResultTable, row: Row, groups: RunGroups) -> UpstreamSummary:
    kinds: dict[str, list[str]] = {"better": [], "inconclusive": [], "worse": []}
    for column in task_columns(table):
        cell = row.cells.get(column.key)
        kind = verdicts.verdict(cell, column) if cell else ""
        if kind in kinds:
            kinds[kind].append(short_name(column))
    ranked_keys = {key for other in table.rows for key, cell in other.cells.items() if cell.rank}
    own = [column for column in task_columns(table) if column.key in row.cells]
    ranked = [column for column in own if column.key in ranked_keys]
    return UpstreamSummary(
        name=row.name,
        reference=row.name == table.reference,
        best=sum(row.cells[column.key].rank != "" for column in ranked),
        metrics=len(ranked),
        better=tuple(kinds["better"]),
        inconclusive=tuple(kinds["inconclusive"]),
        worse=tuple(kinds["worse"]),
        overall=tuple(_upstream_texts(row, table.columns, cost=False)),
        cost=tuple(_upstream_texts(row, table.columns, cost=True)),
        at_chance=tuple(dict.fromkeys(c.key[0].upper() for c in own if row.cells[c.key].at_chance)),
        retained=_retained(row) + _relative_size(table, row),
    )


def _retained(row: Row) -> str:
    """The % retained of the reference's overall figure, of superb_s where there is one."""
    for total, retained in totals.RETAINED_COLUMN.items():
        cell = row.cells.get(retained.key)
        if cell:
            return f"; it retains {retained.format(cell.value)} % of the reference's {total.heading}"
    return ""


def _relative_size(table: ResultTable, row: Row) -> str:
    own, other = (table.cell(name, costs.PARAMETERS.key) for name in (row.name, table.reference or ""))
    if own is None or other is None or not own.value or not other.value:
        return ""
    if own.value == other.value:
        return ", with as many parameters"
    return f", with {100 * own.value / other.value:.0f} % of its parameters"


COSTS = tuple(column.key for column in (costs.PARAMETERS, costs.MACS, costs.SPEED, costs.TIME, costs.MEMORY))


def _upstream_texts(row: Row, columns: Sequence[Column], cost: bool) -> Iterator[str]:
    """What belongs to the upstream itself: its overall figures, or what it costs."""
    for column in columns:
        cell = row.cells.get(column.key)
        if cell and not column.key[0] and (column.key in COSTS) == cost:
            value, interval, difference = cell.texts(column)
            if column == costs.PARAMETERS:
                yield f"{value} M parameters"
            else:
                yield " ".join(filter(None, (column.heading, value, column.unit, interval)))
            if difference:
                yield difference
