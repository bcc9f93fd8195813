"""Reads a results folder: its finished runs, and whatever else is in it, listed and never fatal.

The records (`result.json`) are the truth about finished runs; the suite's receipts only spare it to compute inputs
again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from downstreams.registry import task_order
from superb_eval.errors import UserError, near_miss
from superb_eval.results import record as records
from superb_eval.results.layer_record import FOLDER as LAYERS
from superb_eval.results.record import MetricRecord, RunRecord
from upstreams.loading import legacy_fingerprints

Protocol = Literal["strict", "historical"]

OTHER_OUTPUTS = {"cost.json", "mlflow.db", "report.html"}
"""Files of other commands at the top of a results folder; names that begin with a dot are expected there too."""

MAX_LISTED = 10
"""Runs listed in one message; the others are counted."""

DEPTH = 3
"""A run lies in `OUT/<upstream>/<task>/<run>`."""


def run_name(profile: str, seed: int, recipe: str, fingerprint: str, corpus: str, limit: int | None = None) -> str:
    """Return the folder name of a run, from the digests of all that it depends on, and its --limit."""
    digest = hashlib.sha256("|".join((recipe, fingerprint, corpus, str(seed))).encode()).hexdigest()[:10]
    part = "" if limit is None else f"limit{limit}-"
    return f"{profile}-{part}seed{seed}-{digest}"


def run_folder(record: RunRecord) -> Path:
    """Return where a run lies in its results folder, by its record."""
    inputs = (record.recipe_digest, record.upstream.fingerprint, record.corpus.digest)
    return Path(
        slug(record.upstream.address), record.task, run_name(record.profile, record.seed, *inputs, record.limit)
    )


def slug(address: str) -> str:
    """Return an upstream's address as a folder name: safe on any file system, and unique to the address."""
    safe = re.sub(r"[^A-Za-z0-9_.@=-]+", "-", address).strip("-.")[:80]
    if safe == address:
        return safe
    return f"{safe}-{hashlib.sha256(address.encode()).hexdigest()[:6]}"


@dataclass(frozen=True)
class Run:
    """A finished run: its record, and the folder that it lies in."""

    record: RunRecord
    folder: Path

    @property
    def repeat_key(self) -> tuple[str, ...]:
        """What runs must share to be repetitions of one another, with other seeds or not."""
        r = self.record
        fingerprint = legacy_fingerprints.current(r.upstream.fingerprint)
        return (r.upstream.address, r.task, r.profile, fingerprint, r.corpus.digest, r.recipe_digest)

    def metrics(self, protocol: Protocol) -> list[MetricRecord]:
        """Return the metrics under a protocol; most tasks have strict ones only, which serve both."""
        historical = {m.key: m for m in self.record.metrics if m.protocol == "historical"}
        strict = [m for m in self.record.metrics if m.protocol == "strict"]
        return [historical.get(m.key, m) for m in strict] if protocol == "historical" else strict

    def metric(self, key: str, protocol: Protocol) -> MetricRecord | None:
        """Return a metric by its key, or None where the run has no such metric."""
        return next((m for m in self.metrics(protocol) if m.key == key), None)


@dataclass(frozen=True)
class RunGroup:
    """One upstream on one task: the newest finished run of each seed, all with the same `repeat_key`, by seed.

    `others` counts the other finished runs: older ones, and those of another recipe, data or weights.
    """

    runs: tuple[Run, ...]
    others: int = 0

    @property
    def record(self) -> RunRecord:
        """The newest run's record: what all of them share."""
        return max(self.runs, key=lambda run: run.record.started).record


RunGroups = Mapping[tuple[str, str], RunGroup]
"""By (upstream, task): the runs of one table."""


@dataclass(frozen=True)
class Results:
    """What a results folder holds.

    `tries`: finished runs with --limit, which neither tables nor reports show. `unreadable`: records that can't be
    read, by folder, with the reason. `unexpected`: a sentence for each entry that is no finished run.
    """

    root: Path
    runs: tuple[Run, ...] = ()
    tries: tuple[Run, ...] = ()
    unreadable: Mapping[Path, str] = field(default_factory=dict)
    unexpected: tuple[str, ...] = ()

    @property
    def left_out(self) -> list[str]:
        """A sentence for each entry that can't be shown."""
        return [*self._about_tries(), *self.unexpected, *self.unreadable.values()]

    @property
    def finished(self) -> tuple[Run, ...]:
        """All finished runs, those with --limit last."""
        return self.runs + self.tries

    def _about_tries(self) -> list[str]:
        names = [f"{run.record.upstream.address} {run.record.task}" for run in self.tries[:MAX_LISTED]]
        more = f" and {len(self.tries) - MAX_LISTED} more" if len(self.tries) > MAX_LISTED else ""
        return [f"{len(self.tries)} run(s) with --limit: {', '.join(names)}{more}."] if names else []

    def of_tasks(self, tasks: Sequence[str]) -> Results:
        """Return the results of some tasks; of all where none are named.

        Raises:
            UserError: there is no run of one of them.
        """
        present = {run.record.task for run in self.runs}
        for task in tasks:
            if task not in present and self.runs:
                known = sorted(present, key=task_order)
                raise UserError(f"--tasks {task}: no run of it.{near_miss(task, known)} Tasks: {', '.join(known)}.")
        return replace(self, runs=tuple(run for run in self.runs if not tasks or run.record.task in tasks))

    @cached_property
    def run_groups(self) -> dict[tuple[str, str], RunGroups]:
        """The groups of runs, by (upstream, task), for each (corpus, profile) that has its own table.

        The official corpora are one corpus, complete as they are; others are distinguished by name, and names of equal
        data are one corpus: it was given under several paths.
        """
        names = _corpus_names([run.record for run in self.runs])
        runs_by_table: dict[tuple[str, str], dict[tuple[str, str], list[Run]]] = {}
        for run in self.runs:
            of_table = runs_by_table.setdefault((names[corpus_family(run.record)], run.record.profile), {})
            of_table.setdefault((run.record.upstream.address, run.record.task), []).append(run)
        return {
            key: {pair: _group(runs) for pair, runs in sorted(runs_by_table[key].items())}
            for key in sorted(runs_by_table, key=str)
        }

    @cached_property
    def shown(self) -> frozenset[Path]:
        """The folders of the runs that tables show."""
        groups = (group for groups in self.run_groups.values() for group in groups.values())
        return frozenset(run.folder for group in groups for run in group.runs)


OFFICIAL = "official corpora"


def corpus_family(record: RunRecord) -> str:
    """Return the corpus that a run's table is of: all official corpora share one."""
    return OFFICIAL if record.corpus.official and record.profile == "superb" else record.corpus.name


def find_run(folder: Path) -> Path:
    """Return the folder of a finished run: `folder` itself, or the only one below it.

    Raises:
        UserError: there is none, or there are several; they are listed.
    """
    if (folder / records.NAME).is_file():
        return folder
    found = [path.parent for depth in range(1, DEPTH + 1) for path in sorted(folder.glob("*/" * depth + records.NAME))]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"{folder}: holds no finished run. Expected a folder with {records.NAME}, or one above it.")
    more = f"\n  (+{len(found) - MAX_LISTED} more)" if len(found) > MAX_LISTED else ""
    listed = "\n  ".join(map(str, found[:MAX_LISTED]))
    raise UserError(f"{folder}: holds {len(found)} finished runs. Give one of them:\n  {listed}{more}")


def _corpus_names(records_of_runs: Sequence[RunRecord]) -> dict[str, str]:
    """Return, for each name of a corpus, the first name of a corpus with equal data on some task."""
    names = {corpus_family(record): corpus_family(record) for record in records_of_runs}
    by_data: dict[tuple[str, str], str] = {}
    for record in sorted(records_of_runs, key=lambda record: record.started):
        family = corpus_family(record)
        if family != OFFICIAL:
            first = by_data.setdefault((record.task, record.corpus.digest), names[family])
            merged = names[family]
            names = {name: first if other == merged else other for name, other in names.items()}
    return names


def open_results(root: Path) -> Results:
    """Read every run of a results folder.

    Raises:
        UserError: there is no such folder.
    """
    runs: list[Run] = []
    unreadable: dict[Path, str] = {}
    for path in records.find(root):
        try:
            runs.append(Run(records.read(path), path.parent))
        except UserError as error:
            unreadable[path.parent] = str(error)
    whole, tries = (tuple(r for r in runs if (r.record.limit is None) is complete) for complete in (True, False))
    return Results(root, whole, tries, unreadable, tuple(_unexpected_entries(root)))


def _group(runs: list[Run]) -> RunGroup:
    newest_first = sorted(runs, key=lambda run: (run.record.started, str(run.folder)), reverse=True)
    by_seed: dict[int, Run] = {}
    for run in newest_first:
        if run.repeat_key == newest_first[0].repeat_key:
            by_seed.setdefault(run.record.seed, run)
    chosen = tuple(by_seed[seed] for seed in sorted(by_seed))
    return RunGroup(chosen, len(runs) - len(chosen))


def _unexpected_entries(root: Path) -> Iterator[str]:
    """A sentence for each entry that is no run, or an unfinished one."""
    for path in sorted(root.glob("*")) if root.is_dir() else []:
        if path.name.startswith(".") or (path.name in OTHER_OUTPUTS and path.is_file()) or path.name == LAYERS:
            continue
        if path.is_dir() and not any(next(path.glob(f"*/*/{name}"), None) for name in (records.NAME, ".lock")):
            yield f"{path}: holds no run."
        else:
            yield from _unexpected_below(path, 1)


def _unexpected_below(path: Path, depth: int) -> Iterator[str]:
    if not path.is_dir():
        yield f"{path}: is no part of a run."
    elif depth < DEPTH:
        inside = sorted(path.glob("*"))
        for entry in inside:
            yield from _unexpected_below(entry, depth + 1)
        if not inside:
            yield f"{path}: is empty."
    elif not (path / records.NAME).exists():
        yield f"{path}: an unfinished run; the command that began it resumes it."
