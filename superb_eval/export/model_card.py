"""The results of an upstream as `model-index`, which Hugging Face's model cards hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from superb_eval.errors import UserError, near_miss
from superb_eval.results.folder import Protocol, Results, RunGroup, open_results
from superb_eval.results.formats import escape
from superb_eval.results.record import MetricRecord, RunRecord
from superb_eval.results.table.result_table import order_of

TASK_TYPES: Mapping[str, str] = {
    "pr": "automatic-speech-recognition",
    "asr": "automatic-speech-recognition",
    "qbe": "audio-to-audio",
    "sf": "automatic-speech-recognition",
}
"""The hub's name for a task, where it isn't audio classification; it knows no finer ones."""

METRIC_TYPES: Mapping[str, str] = {"acc": "accuracy", "wer_lm": "wer"}
"""The hub's name for a metric, where it isn't ours."""


def model_index(results: Path, name: str, protocol: Protocol) -> str:
    """Return YAML with a result for each task and metric of the upstream `name`.

    Each says what it was measured on; what is not SUPERB is not called so.

    Raises:
        UserError: there is no such folder, or no run of that upstream in it.
    """
    import yaml

    cells = cells_of(open_results(results), name)
    entries = [_entry(cell, metric, protocol) for cell in cells for metric in cell.runs[0].figures(protocol)]
    content = {"model-index": [{"name": escape.visible(name), "results": entries}]}
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return text


def cells_of(results: Results, name: str) -> list[RunGroup]:
    """Return the cells of an upstream, of every corpus and profile, in the papers' order.

    Raises:
        UserError: there is none.
    """
    boards = results.boards.values()
    found = [cell for cells in boards for (upstream, _), cell in cells.items() if upstream == name]
    if not found:
        known = sorted({upstream for cells in boards for upstream, _ in cells})
        there = ", ".join(known) or "none"
        raise UserError(f"{results.root}: no run of '{name}'.{near_miss(name, known)} There: {there}.")
    return sorted(found, key=lambda cell: order_of(cell.record.task))


def _entry(cell: RunGroup, metric: MetricRecord, protocol: Protocol) -> dict[str, Any]:
    record = cell.record
    value = mean(m.value for run in cell.runs if (m := run.figure(metric.key, protocol)))
    return {
        "task": {"type": TASK_TYPES.get(record.task, "audio-classification"), "name": _task(record)},
        "dataset": {
            "type": record.corpus.name.lower().replace(" ", "_"),
            "name": record.corpus.name,
            "split": "test",
            "revision": record.corpus.digest,
        },
        "metrics": [
            {
                "type": METRIC_TYPES.get(metric.key, metric.key),
                "value": round(value, 4),
                "name": f"{metric.heading} ({metric.unit})",
                "args": _about(cell, metric, protocol),
            }
        ],
    }


def _task(record: RunRecord) -> str:
    kind = "SUPERB" if record.corpus.official and record.profile == "superb" else "not SUPERB"
    synthetic = ", synthetic speech" if record.corpus.synthetic else ""
    return f"{record.task.upper()} ({kind}, profile {record.profile}{synthetic})"


def _about(cell: RunGroup, metric: MetricRecord, protocol: Protocol) -> dict[str, Any]:
    interval = [round(metric.low, 4), round(metric.high, 4)] if len(cell.runs) == 1 else None
    return {
        "protocol": metric.protocol if protocol == "historical" else "strict",
        "interval_95": interval,
        "test_units": metric.units,
        "seeds": len(cell.runs),
        "command": cell.record.command,
    }
