"""What an upstream costs: its parameters, and where `superb-eval cost` was asked, its operations and its speed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.results.folder import RunGroup
from superb_eval.results.table.result_table import Cell, Column, Row
from superb_eval.runtime import atomic_files

NAME = "cost.json"
"""At the top of a results folder: `{ADDRESS: {"gmacs_per_second": number, "real_time_factor": number}}`."""

PARAMETERS = Column(("", "parameters_m"), "params M", "", higher_is_better=None)
MACS = Column(("", "gmacs_per_second"), "GMAC/s", "", higher_is_better=None)
SPEED = Column(("", "speed_up"), "speed-up", "x", higher_is_better=None)

Costs = Mapping[str, Mapping[str, float]]


def read(folder: Path) -> Costs:
    """Return the costs that a results folder keeps, by upstream; nothing where it keeps none.

    Raises:
        UserError: its file is not what `superb-eval cost` writes.
    """
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf8"))
        return {name: {key: float(value) for key, value in figures.items()} for name, figures in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not what `superb-eval cost` writes ({error!r}). Remove it, or make it anew."
        ) from error


def keep(folder: Path, costs: Costs) -> None:
    """Write costs beside the results, in place of what was there: only speeds measured in turns may be compared.

    Raises:
        UserError: the disk is full, or may not be written.
    """
    atomic_files.write_text(folder / NAME, json.dumps(costs, indent=2, sort_keys=True) + "\n")


def with_costs(
    lines: Sequence[Row], cells: Mapping[tuple[str, str], RunGroup], costs: Costs, reference: str | None
) -> tuple[list[Row], tuple[Column, ...]]:
    """Return measured lines with what they cost, and the columns for it; speed-up is that over the reference."""
    done = [_with(line, cells, costs, reference) for line in lines]
    there = {place for line in done for place in line.figures}
    return done, tuple(column for column in (PARAMETERS, MACS, SPEED) if column.place in there)


def _with(line: Row, cells: Mapping[tuple[str, str], RunGroup], costs: Costs, reference: str | None) -> Row:
    parameters = next(cell.record.upstream.parameters for (name, _), cell in cells.items() if name == line.name)
    figures = {PARAMETERS.place: Cell(parameters / 1e6)}
    own, other = costs.get(line.name, {}), costs.get(reference or "", {})
    if "gmacs_per_second" in own:
        figures[MACS.place] = Cell(own["gmacs_per_second"])
    if own.get("real_time_factor") and other.get("real_time_factor"):
        figures[SPEED.place] = Cell(other["real_time_factor"] / own["real_time_factor"])
    return replace(line, figures={**figures, **line.figures})
