"""Reads a results folder by the package's own code, and writes what documents cite of it as two small CSV files."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from superb_eval import recipe
from superb_eval.errors import UserError
from superb_eval.results.folder import Run, open_results
from superb_eval.results.formats import tabular
from superb_eval.results.recorded_command import parse_command, shareable
from superb_eval.results.table import build
from superb_eval.results.table.build import TableOptions
from superb_eval.runtime import atomic_files
from superb_eval.runtime.progress import NoProgress, Progress

RUN_FIELDS = (
    *("upstream", "task", "seed", "figures", "historical", "chance", "overrides"),
    *("fingerprint", "weights", "corpus", "corpus_digest", "recipe_digest", "predictions", "code", "commit"),
    *("python", "torch", "processor", "capability", "cores", "threads", "device", "started", "training_s", "command"),
)
"""Columns of `SET.runs.csv`; `recipes/recorded/README.md` describes them."""

DIFFERENCE_FIELDS = ("difference", "difference_low", "difference_high", "p", "distinguishable")
UNCITED = ("table", "published", "source", "rank", "marks")
"""Columns of a table's CSV that no document cites: a set has one table, measured here, and ranks and marks are for the
terminal."""

CELL_FIELDS = ("reference", *(name for name in tabular.FIELDS if name not in UNCITED))
"""Columns of `SET.cells.csv`: the reference of differences, and those of `superb-eval table --format csv` that may be
cited."""

DIGITS = 16
"""Hexadecimal digits of a SHA-256 that are stored: enough to compare with a record's."""


def folder() -> Path:
    """Return the folder of the recorded sets."""
    return recipe.folder() / "recorded"


def collect(
    results: Path,
    name: str,
    commit: str,
    renames: Sequence[str] = (),
    references: Sequence[str] = (),
    shared: Sequence[str] = (),
    progress: Progress | None = None,
) -> tuple[list[Path], list[str]]:
    """Write the runs and the cells of a results folder; return the files, and a sentence for each entry left out.

    Args:
        results: of one corpus and profile.
        name: of the set, which the files are named after.
        commit: of the code that made the runs; records hold none.
        renames: `OLD=NEW`, of upstreams whose address names a folder of this machine.
        references: upstreams from which differences are computed, by their new names; empty: all.
        shared: upstreams whose runs another set holds, by their new names: only their cells are written.
        progress: what reports each table.

    Raises:
        UserError: the folder holds no table or several, an option is none, or an address names a local folder.
    """
    if not re.fullmatch("[0-9a-f]{7,40}", commit) or not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"--commit {commit} --set {name}: expected a commit's 7 to 40 hex digits, and a plain name.")
    new_names = _renames(renames)
    progress = progress or NoProgress()
    cells, left_out = _cells(results, None, progress)
    upstreams = list(dict.fromkeys(cell["upstream"] for cell in cells))
    _check_names(upstreams, new_names, (*references, *shared))
    for upstream in upstreams:
        if not references or new_names.get(upstream, upstream) in references:
            cells += _cells(results, upstream, progress)[0]
    opened = open_results(results)
    runs = [run_row(run, commit, new_names) for run in opened.runs if run.folder in opened.shown]
    runs = [run for run in runs if run["upstream"] not in shared]
    for cell in cells:
        cell |= {key: new_names.get(cell[key], cell[key]) for key in ("reference", "upstream")}
    written = [
        _write(folder() / f"{name}.runs.csv", RUN_FIELDS, runs),
        _write(folder() / f"{name}.cells.csv", CELL_FIELDS, cells),
    ]
    return written, left_out


def _renames(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.rpartition("=") for text in texts]
    for old, _, new in pairs:
        if not old or not new:
            raise UserError(f"--rename {old}{new}: expected OLD=NEW, such as hubert@/my/folder/cut=hubert@cut.")
    return {old: new for old, _, new in pairs}


def _check_names(upstreams: Sequence[str], new_names: Mapping[str, str], references: Sequence[str]) -> None:
    """Refuse a local folder as a name, two upstreams of one name, and options about upstreams that aren't there."""
    shown = [new_names.get(upstream, upstream) for upstream in upstreams]
    for name in shown:
        if re.search(r"(^|[@:])[/~]", name):
            raise UserError(f"{name}: names a folder of this machine. Add --rename {name}=NAME.")
    missing = [*(new_names.keys() - set(upstreams)), *(set(references) - set(shown))]
    if missing or len(set(shown)) < len(shown):
        raise UserError(
            f"--rename, --against and --shared are to name rows, each once; got {', '.join(missing) or shown}. "
            f"The rows: {', '.join(upstreams)}."
        )


def _cells(results: Path, reference: str | None, progress: Progress) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the cells of the only table; with a reference, only what depends on it."""
    tables, left_out = build.collect(results, TableOptions(against=reference), progress)
    if len(tables) != 1:
        titles = "; ".join(table.title for table in tables)
        raise UserError(f"{results}: a set is one corpus and profile, but these are {len(tables)} tables: {titles}.")
    figures = json.loads(tabular.as_json(tables))["tables"][0]["figures"]
    if reference is None:
        return [{"reference": "", **figure} for figure in figures], left_out
    return [_of_reference(figure, reference) for figure in figures if _depends(figure)], left_out


def _depends(figure: Mapping[str, Any]) -> bool:
    return figure["difference"] is not None or figure["metric"].startswith("retained_")


def _of_reference(figure: Mapping[str, Any], reference: str) -> dict[str, Any]:
    fields: tuple[str, ...] = ("upstream", "task", "metric", *DIFFERENCE_FIELDS)
    fields += ("value", "low", "high") if figure["metric"].startswith("retained_") else ()
    return {"reference": reference, **{field: figure[field] for field in fields}}


def run_row(run: Run, commit: str, new_names: Mapping[str, str]) -> dict[str, Any]:
    """Return a run as a row of `SET.runs.csv`."""
    record, hardware = run.record, run.record.hardware
    address = record.upstream.address
    words = (new_names.get(address, word) if word == address else word for word in shlex.split(record.command))
    values = (
        new_names.get(address, address),
        record.task,
        record.seed,
        _figures(run, "strict"),
        _figures(run, "historical"),
        "" if record.chance is None else round(record.chance, 4),
        "; ".join(parse_command(record).overrides),
        record.upstream.fingerprint[:DIGITS],
        record.upstream.identity.get("weights", "")[:DIGITS],
        record.corpus.name,
        record.corpus.digest[:DIGITS],
        record.recipe_digest[:DIGITS],
        record.predictions.get("predictions.csv", "")[:DIGITS],
        record.code,
        commit,
        record.versions.get("python", ""),
        record.versions.get("torch", ""),
        *(hardware.get(key, "") for key in ("cpu", "cpu_capability", "cores", "torch_threads", "device")),
        record.started,
        round(record.seconds.get("training and test", 0.0), 1),
        shareable(shlex.join(words)),
    )
    return dict(zip(RUN_FIELDS, values, strict=True))


def _figures(run: Run, protocol: str) -> str:
    return " ".join(f"{m.key}={m.value:.6g}" for m in run.record.metrics if m.protocol == protocol)


def _write(path: Path, fields: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    atomic_files.write_text(path, text.getvalue())
    return path
