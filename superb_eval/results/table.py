"""The table: upstreams down, tasks across, each cell with its interval; gaps stay gaps.

Runs of different corpora or profiles are different questions, so each gets a table of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from superb_eval.errors import UserError
from superb_eval.results import record as records
from superb_eval.results.record import MetricRecord, RunRecord

if TYPE_CHECKING:
    from rich.table import Table as RichTable

PAPER_ORDER = ("pr", "asr", "ks", "qbe", "sid", "asv", "sd", "ic", "sf", "er")
"""Tasks in the column order of the papers, as far as they go; others follow by name."""

Protocol = Literal["strict", "historical"]

MARKS = {
    "*": "* several runs; the latest is shown.",
    "†": "† other data than most of its column: not comparable with it.",
    "‡": "‡ another recipe than most of its column's.",
}


@dataclass
class Board:
    """One table: the runs of one corpus and profile, the latest of each upstream and task."""

    corpus: str
    synthetic: bool
    profile: str
    protocol: Protocol = "strict"
    cells: dict[tuple[str, str], RunRecord] = field(default_factory=dict)
    runs: dict[tuple[str, str], int] = field(default_factory=dict)

    def title(self) -> str:
        """Return the heading; what is not SUPERB is never called so."""
        kind = "official SUPERB protocol" if self.profile == "superb" and not self.synthetic else "not SUPERB"
        speech = "synthetic speech, " if self.synthetic else ""
        return f"{self.corpus} ({speech}profile {self.profile}: {kind}; {self.protocol} figures)"

    def upstreams(self) -> list[str]:
        """Return the rows, in order of name."""
        return sorted({upstream for upstream, _ in self.cells})

    def columns(self) -> list[tuple[str, MetricRecord]]:
        """Return (task, metric) of each column, in the papers' order."""
        found: dict[tuple[str, str], tuple[str, MetricRecord]] = {}
        for (_, task), run in self.cells.items():
            for metric in self.figures(run):
                found.setdefault((task, metric.key), (task, metric))
        return sorted(found.values(), key=lambda column: (_place(column[0]), column[0]))

    def cell(self, upstream: str, task: str, key: str) -> MetricRecord | None:
        """Return a figure, or None where there was no such run."""
        run = self.cells.get((upstream, task))
        return next((m for m in self.figures(run) if m.key == key), None) if run else None

    def figures(self, run: RunRecord) -> list[MetricRecord]:
        """Return a run's metrics under the board's protocol; most tasks have strict figures only, which serve both."""
        historical = {m.key: m for m in run.metrics if m.protocol == "historical"}
        strict = [m for m in run.metrics if m.protocol == "strict"]
        return [historical.get(m.key, m) for m in strict] if self.protocol == "historical" else strict

    def marks(self, upstream: str, task: str) -> str:
        """Return what sets a cell apart: several runs, or data or a recipe unlike most of its column's."""
        run = self.cells[upstream, task]
        column = [other for (_, t), other in self.cells.items() if t == task]
        data = Counter(other.corpus.digest for other in column).most_common(1)[0][0]
        recipe = Counter(other.recipe_digest for other in column).most_common(1)[0][0]
        several = "*" if self.runs[upstream, task] > 1 else ""
        return several + ("†" if run.corpus.digest != data else "") + ("‡" if run.recipe_digest != recipe else "")

    def caption(self) -> str:
        """Return what has to be known to read the table: brackets, chance, marks."""
        chance = {task.upper(): run.chance for (_, task), run in sorted(self.cells.items()) if run.chance is not None}
        parts = ["Brackets: 95 % bootstrap interval over test utterances (trials, queries, recordings)."]
        if chance:
            figures = ", ".join(f"{task} {value:.2f}" for task, value in chance.items())
            parts.append(f"Chance: {figures}.")
        marks = "".join(self.marks(*place) for place in self.cells)
        return " ".join(parts + [meaning for mark, meaning in MARKS.items() if mark in marks])


def collect(results: Path, protocol: Protocol = "strict") -> tuple[list[Board], list[str]]:
    """Read every record of a results folder; also return what could not be read, a sentence each.

    `strict` figures have everything chosen on dev; `historical` ones follow the published procedure where that looks at
    the test set, and are the ones to compare with the literature.

    Raises:
        UserError: there is no such folder, or no run in it is finished.
    """
    boards: dict[tuple[str, str], Board] = {}
    problems: list[str] = []
    for path in records.find(results):
        try:
            run = records.read(path)
        except UserError as error:
            problems.append(str(error))
            continue
        board = boards.setdefault(
            (run.corpus.name, run.profile), Board(run.corpus.name, run.corpus.synthetic, run.profile, protocol)
        )
        _place_run(board, run)
    if not boards and not problems:
        raise UserError(
            f"{results}: holds no finished run. `superb-eval run TASK -u UPSTREAM --out {results}` makes one."
        )
    return [boards[key] for key in sorted(boards)], problems


def as_rich(board: Board) -> RichTable:
    """Return a board as a table for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(board.title()), title_justify="left")
    for heading in _headings(board):
        table.add_column(escape(heading), justify="left" if heading == "upstream" else "right", no_wrap=True)
    for row in _rows(board):
        table.add_row(*map(escape, row))
    return table


def as_markdown(board: Board) -> str:
    """Return a board as Markdown."""
    rows = [_headings(board), ["---"] + ["---:"] * (len(_headings(board)) - 1), *_rows(board)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"**{board.title()}**", "", *lines, "", board.caption()])


def _place_run(board: Board, run: RunRecord) -> None:
    place = (run.upstream.address, run.task)
    board.runs[place] = board.runs.get(place, 0) + 1
    if place not in board.cells or run.started >= board.cells[place].started:
        board.cells[place] = run


def _place(task: str) -> int:
    return PAPER_ORDER.index(task) if task in PAPER_ORDER else len(PAPER_ORDER)


def _headings(board: Board) -> list[str]:
    def heading(task: str, metric: MetricRecord) -> str:
        arrow = "↑" if metric.higher_is_better else "↓"
        return f"{task.upper()} {metric.heading} {metric.unit} {arrow}"

    return ["upstream", "params M", *(heading(task, metric) for task, metric in board.columns())]


def _rows(board: Board) -> Iterable[list[str]]:
    for upstream in board.upstreams():
        parameters = next(run.upstream.parameters for (u, _), run in board.cells.items() if u == upstream)
        figures = [_figure(board, upstream, task, metric) for task, metric in board.columns()]
        yield [upstream, f"{parameters / 1e6:.2f}", *figures]


def _figure(board: Board, upstream: str, task: str, metric: MetricRecord) -> str:
    found = board.cell(upstream, task, metric.key)
    if found is None:
        return ""
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]{board.marks(upstream, task)}"
