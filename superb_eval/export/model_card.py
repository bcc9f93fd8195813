"""The results of an upstream as `model-index`, the results part of a Hugging Face model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from downstreams import registry
from superb_eval.errors import UserError, near_miss
from superb_eval.results import upstream_address
from superb_eval.results.folder import Protocol, Results, RunGroup, open_results
from superb_eval.results.record import MetricRecord, RunRecord
from superb_eval.results.recorded_command import shareable, without_folders
from superb_eval.results.stats import training_spread
from superb_eval.runtime.screen import visible

METRIC_TYPES: Mapping[str, str] = {"acc": "accuracy", "wer_lm": "wer"}
"""The hub's name for a metric, where it isn't ours."""


def model_index(results: Path, name: str, protocol: Protocol) -> str:
    """Return YAML with a result for each task and metric of the upstream `name`.

    Each names the data it was measured on; only official runs are called SUPERB. No folder of this machine is named.

    Raises:
        UserError: there is no such folder, or no run of that upstream in it.
    """
    import yaml

    content = {"model-index": index(run_groups_of(open_results(results), name), protocol)}
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return text


def index(groups: Sequence[RunGroup], protocol: Protocol) -> list[dict[str, Any]]:
    """Return the value of `model-index`: the name of the groups' upstream, a result for each task and metric."""
    name = visible(without_folders(groups[0].record.upstream.address))
    entries = [_entry(group, metric, protocol) for group in groups for metric in group.runs[0].metrics(protocol)]
    return [{"name": name, "results": entries}]


def run_groups_of(results: Results, name: str) -> list[RunGroup]:
    """Return the run groups of an upstream, of every corpus and profile, in the papers' order.

    Raises:
        UserError: there is none.
    """
    tables = results.run_groups.values()
    upstreams = sorted({upstream for groups in tables for upstream, _ in groups})
    address = upstream_address.row_of(name, upstreams)
    selected = [group for groups in tables for (upstream, _), group in groups.items() if upstream == address]
    if not selected:
        listed = ", ".join(upstreams) or "none"
        raise UserError(
            f"{results.root}: no run of '{name}'.{near_miss(name, upstreams)} Upstreams with runs: {listed}."
        )
    return sorted(selected, key=lambda group: registry.task_order(group.record.task))


def _entry(group: RunGroup, metric: MetricRecord, protocol: Protocol) -> dict[str, Any]:
    record = group.record
    value = mean(m.value for run in group.runs if (m := run.metric(metric.key, protocol)))
    return {
        "task": {"type": registry.get_or_base(record.task).hub_task, "name": _task_name(record)},
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
                "args": _arguments(group, metric, protocol),
            }
        ],
    }


def _task_name(record: RunRecord) -> str:
    kind = "SUPERB" if record.corpus.official and record.profile == "superb" else "not SUPERB"
    synthetic = ", synthetic speech" if record.corpus.synthetic else ""
    return f"{record.task.upper()} ({kind}, profile {record.profile}{synthetic})"


def _arguments(group: RunGroup, metric: MetricRecord, protocol: Protocol) -> dict[str, Any]:
    ends = training_spread.widened(group.record, metric)
    interval = [round(end, 4) for end in ends] if len(group.runs) == 1 else None
    return {
        "protocol": metric.protocol if protocol == "historical" else "strict",
        "interval_95": interval,
        "test_units": metric.units,
        "seeds": len(group.runs),
        "command": shareable(group.record.command),
    }
