"""What an upstream costs: its parameters, and where `superb-eval cost` measured them, its operations and its speed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from superb_eval.errors import UserError
from superb_eval.results import run_files
from superb_eval.results.folder import RunGroups
from superb_eval.results.record import RunRecord, format_error
from superb_eval.results.table.result_table import Cell, Column, ColumnKey, ResultTable, Row
from superb_eval.runtime import atomic_files

NAME = "cost.json"
"""At the top of a results folder: `{ADDRESS: {"gmacs_per_second": number, "real_time_factor": number}}`."""

PARAMETERS = Column(("", "parameters_m"), "params M", "", higher_is_better=None)
MACS = Column(("", "gmacs_per_second"), "GMAC/s", "", higher_is_better=None)
SPEED = Column(("", "speed_up"), "speed-up", "x", higher_is_better=None)
TIME = Column(("", "evaluation_minutes"), "evaluation", "min", higher_is_better=None, decimals=1)
MEMORY = Column(("", "peak_memory_gb"), "peak memory", "GB", higher_is_better=None)

Costs = Mapping[str, Mapping[str, float]]

_STORED = TypeAdapter(dict[str, dict[str, Annotated[float, Field(gt=0, le=1e12)]]])


def read(folder: Path) -> Costs:
    """Return the costs stored in a results folder, by upstream; nothing where none are.

    Raises:
        UserError: its file is not what `superb-eval cost` writes.
    """
    if not run_files.exists(folder, NAME):
        return {}
    try:
        return _STORED.validate_json(run_files.read_bytes(folder, NAME))
    except ValidationError as error:
        why = format_error(error)
        raise UserError(
            f"{folder / NAME}: not what `superb-eval cost` writes ({why}). Remove it, or measure again."
        ) from error


def read_or_report(folder: Path) -> tuple[Costs, list[str]]:
    """Return what `read` does, or nothing and a sentence on what is wrong: a table stands without costs."""
    try:
        return read(folder), []
    except UserError as error:
        return {}, [str(error)]


def write(folder: Path, costs: Costs) -> None:
    """Write costs beside the results, in place of what was there: only speeds measured together can be compared.

    Raises:
        UserError: the disk is full, or may not be written.
    """
    atomic_files.write_text(folder / NAME, json.dumps(costs, indent=2, sort_keys=True) + "\n")


def with_costs(
    rows: Sequence[Row], groups: RunGroups, costs: Costs, reference: str | None
) -> tuple[list[Row], tuple[Column, ...]]:
    """Return measured rows with what they cost, and the columns for it; speed-up is that over the reference."""
    done = [_with_cost(row, groups, costs, reference) for row in rows]
    filled = {key for row in done for key in row.cells}
    return done, tuple(column for column in (PARAMETERS, MACS, SPEED) if column.key in filled)


def _with_cost(row: Row, groups: RunGroups, costs: Costs, reference: str | None) -> Row:
    parameters = next(group.record.upstream.parameters for (name, _), group in groups.items() if name == row.name)
    cells = {PARAMETERS.key: Cell(parameters / 1e6)}
    own, other = costs.get(row.name, {}), costs.get(reference or "", {})
    if "gmacs_per_second" in own:
        cells[MACS.key] = Cell(own["gmacs_per_second"])
    if own.get("real_time_factor") and other.get("real_time_factor"):
        cells[SPEED.key] = Cell(other["real_time_factor"] / own["real_time_factor"])
    return replace(row, cells={**cells, **row.cells})


def with_evaluation(table: ResultTable, groups: RunGroups) -> ResultTable:
    """Return a table with what the evaluation of its measured rows took: minutes of all runs, and memory at the peak.

    A run whose features were in the store took no time to extract them. Older records hold no memory.
    """
    rows = [
        replace(row, cells={**row.cells, **_of_evaluation(_records(row.name, groups))}) if not row.published else row
        for row in table.rows
    ]
    filled = {key for row in rows for key in row.cells}
    columns = tuple(column for column in (TIME, MEMORY) if column.key in filled)
    return replace(table, rows=tuple(rows), columns=(*table.columns, *columns))


def _records(name: str, groups: RunGroups) -> list[RunRecord]:
    return [run.record for (upstream, _), group in groups.items() if upstream == name for run in group.runs]


def _of_evaluation(records: Sequence[RunRecord]) -> dict[ColumnKey, Cell]:
    seconds = sum(sum(record.seconds.values()) for record in records)
    peaks = [record.peak_memory for record in records if record.peak_memory is not None]
    cells = {TIME.key: Cell(seconds / 60)}
    return {**cells, MEMORY.key: Cell(max(peaks) / 1e9)} if peaks else cells
