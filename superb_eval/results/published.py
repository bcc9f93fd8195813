"""Figures that others published, each with its source; they stand beside measured ones and are never mixed with them.

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
class PublishedRow:
    """One published system. `figures` are by (task, metric), in percent (MTWV x 100); `folds` those of single folds."""

    key: str
    name: str
    parameters_m: float
    figures: dict[tuple[str, str], float]
    source: str
    verified: bool
    folds: dict[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)


@cache
def rows() -> tuple[PublishedRow, ...]:
    """Return every row of `published.csv`."""
    return tuple(_row(cells) for cells in _read("published.csv"))


def choose(names: Sequence[str]) -> tuple[PublishedRow, ...]:
    """Return the rows of those names or keys, such as `hubert_base`; `all` stands for every row.

    Raises:
        UserError: there is no such row; near misses are offered.
    """
    if "all" in names:
        return rows()
    return tuple(_one(name) for name in dict.fromkeys(names))


def find(name: str) -> PublishedRow | None:
    """Return the row of that name or key, if there is one."""
    wanted = key_of(name)
    return next((row for row in rows() if row.key == wanted), None)


def key_of(name: str) -> str:
    """Return a name as the command line takes it: `WavLM Base+` is `wavlm_base_plus`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("+", " plus")).strip("_")


def _one(name: str) -> PublishedRow:
    found = find(name)
    if found is None:
        known = [row.key for row in rows()]
        raise UserError(
            f"--published {name}: no row of that name is published.{near_miss(key_of(name), known)} "
            f"Known: all, {', '.join(known)}."
        )
    return found


def _row(cells: dict[str, str]) -> PublishedRow:
    figures = {place: _percent(column, cells[column]) for column, place in METRICS.items() if cells[column]}
    return PublishedRow(
        key=key_of(cells["upstream"]),
        name=cells["upstream"],
        parameters_m=float(cells["params_M"]),
        figures=figures,
        source=cells["source"],
        verified=cells["verified"] == "yes",
        folds=_folds(cells["upstream"]),
    )


def _percent(column: str, cell: str) -> float:
    return round(float(cell) * (100 if column == "qbe_mtwv" else 1), 6)


def _folds(upstream: str) -> dict[tuple[str, str], tuple[float, ...]]:
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for cells in _read("published_folds.csv"):
        if cells["upstream"] == upstream:
            place = (cells["task"], cells["metric"])
            found.setdefault(place, []).append((int(cells["fold"]), float(cells["value"])))
    return {place: tuple(value for _, value in sorted(values)) for place, values in found.items()}


def _read(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))
