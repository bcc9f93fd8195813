"""Figures that others published, each with its source; tables show them below measured ones, unranked.

They were measured on SUPERB's official corpora by the historical protocol, and have no intervals.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from superb_eval.errors import UserError, near_miss

HERE = Path(__file__).parent

METRICS = {
    "pr_per": ("pr", "per"),
    "asr_wer": ("asr", "wer"),
    "asr_lm_wer": ("asr", "wer_lm"),
    "ks_acc": ("ks", "acc"),
    "qbe_mtwv": ("qbe", "mtwv"),
    "sid_acc": ("sid", "acc"),
    "asv_eer": ("asv", "eer"),
    "sd_der": ("sd", "der"),
    "ic_acc": ("ic", "acc"),
    "sf_f1": ("sf", "f1"),
    "sf_cer": ("sf", "cer"),
    "er_acc": ("er", "acc"),
}
"""Columns of `published.csv`: the task and the key of the metric."""


@dataclass(frozen=True)
class PublishedSystem:
    """One published system. `values` are by (task, metric), in percent (MTWV x 100); `folds` those of single folds."""

    key: str
    name: str
    parameters_m: float
    values: dict[tuple[str, str], float]
    source: str
    verified: bool
    folds: dict[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)


@cache
def systems() -> tuple[PublishedSystem, ...]:
    """Return every system of `published.csv`."""
    return tuple(_system(cells) for cells in _read("published.csv"))


def choose(names: Sequence[str]) -> tuple[PublishedSystem, ...]:
    """Return the systems of those names or keys, such as `hubert_base`; `all` stands for every one.

    Raises:
        UserError: no system has that name; near misses are offered.
    """
    if "all" in names:
        return systems()
    return tuple(_choose_one(name) for name in dict.fromkeys(names))


def find(name: str) -> PublishedSystem | None:
    """Return the system of that name or key, None where there is none."""
    key = key_of(name)
    return next((system for system in systems() if system.key == key), None)


def key_of(name: str) -> str:
    """Return a name as the command line takes it: `WavLM Base+` is `wavlm_base_plus`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("+", " plus")).strip("_")


def _choose_one(name: str) -> PublishedSystem:
    system = find(name)
    if system is None:
        keys = [system.key for system in systems()]
        raise UserError(
            f"--published {name}: no published row has that name.{near_miss(key_of(name), keys)} "
            f"Known: all, {', '.join(keys)}."
        )
    return system


def _system(cells: dict[str, str]) -> PublishedSystem:
    values = {metric: _percent(column, cells[column]) for column, metric in METRICS.items() if cells[column]}
    return PublishedSystem(
        key=key_of(cells["upstream"]),
        name=cells["upstream"],
        parameters_m=float(cells["params_M"]),
        values=values,
        source=cells["source"],
        verified=cells["verified"] == "yes",
        folds=_folds(cells["upstream"]),
    )


def _percent(column: str, cell: str) -> float:
    return round(float(cell) * (100 if column == "qbe_mtwv" else 1), 6)


def _folds(upstream: str) -> dict[tuple[str, str], tuple[float, ...]]:
    folds: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for cells in _read("published_folds.csv"):
        if cells["upstream"] == upstream:
            metric = (cells["task"], cells["metric"])
            folds.setdefault(metric, []).append((int(cells["fold"]), float(cells["value"])))
    return {metric: tuple(value for _, value in sorted(values)) for metric, values in folds.items()}


def _read(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))
