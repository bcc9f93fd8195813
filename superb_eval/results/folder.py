"""A results folder as it lies on the disk: its finished runs, and whatever else is in it, named and never fatal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from superb_eval.errors import UserError
from superb_eval.results import record as records
from superb_eval.results.layer_record import FOLDER as LAYERS
from superb_eval.results.record import MetricRecord, RunRecord
from upstreams.loading import earlier_fingerprints

Protocol = Literal["strict", "historical"]

OWN = {"cost.json", "report.html"}
"""Files at the top of a results folder that other commands leave there; so are names that begin with a dot."""

DEPTH = 3
"""A run lies in `OUT/<upstream>/<task>/<run>`."""


@dataclass(frozen=True)
class Run:
    """A finished run: its record, and the folder that it lies in."""

    record: RunRecord
    folder: Path

    @property
    def question(self) -> tuple[str, ...]:
        """What runs must share to be repetitions of one another, with other seeds or not."""
        r = self.record
        fingerprint = earlier_fingerprints.current(r.upstream.fingerprint)
        return (r.upstream.address, r.task, r.profile, fingerprint, r.corpus.digest, r.recipe_digest)

    def figures(self, protocol: Protocol) -> list[MetricRecord]:
        """Return the metrics under a protocol; most tasks have strict figures only, which serve both."""
        historical = {m.key: m for m in self.record.metrics if m.protocol == "historical"}
        strict = [m for m in self.record.metrics if m.protocol == "strict"]
        return [historical.get(m.key, m) for m in strict] if protocol == "historical" else strict

    def figure(self, key: str, protocol: Protocol) -> MetricRecord | None:
        """Return a metric by its key, or None where the run has no such figure."""
        return next((m for m in self.figures(protocol) if m.key == key), None)


@dataclass(frozen=True)
class RunGroup:
    """One upstream on one task: the newest finished run of each seed, all of one question, by seed.

    `others` counts finished runs that are not among them: older ones, and those of another recipe, data or weights.
    """

    runs: tuple[Run, ...]
    others: int = 0

    @property
    def record(self) -> RunRecord:
        """The newest run's record: what all of them share."""
        return max(self.runs, key=lambda run: run.record.started).record


@dataclass(frozen=True)
class Results:
    """What a results folder holds.

    `broken`: records that can't be read, with a sentence each. `strangers`: a sentence for each thing that is no
    finished run.
    """

    root: Path
    runs: tuple[Run, ...] = ()
    broken: Mapping[Path, str] = field(default_factory=dict)
    strangers: tuple[str, ...] = ()

    @property
    def left_out(self) -> list[str]:
        """A sentence for each thing that can't be shown."""
        return [*self.strangers, *self.broken.values()]

    @cached_property
    def boards(self) -> dict[tuple[str, str], dict[tuple[str, str], RunGroup]]:
        """Cells by (upstream, task), for each (corpus, profile) that has its own table.

        The official corpora are one corpus, complete as they are; others stand for themselves, by name.
        """
        found: dict[tuple[str, str], dict[tuple[str, str], list[Run]]] = {}
        for run in self.runs:
            board = found.setdefault((family(run.record), run.record.profile), {})
            board.setdefault((run.record.upstream.address, run.record.task), []).append(run)
        return {
            key: {place: _cell(runs) for place, runs in sorted(found[key].items())} for key in sorted(found, key=str)
        }

    @cached_property
    def shown(self) -> frozenset[Path]:
        """The folders of the runs that tables show."""
        cells = (cell for board in self.boards.values() for cell in board.values())
        return frozenset(run.folder for cell in cells for run in cell.runs)


OFFICIAL = "official corpora"


def family(record: RunRecord) -> str:
    """Return what a run's corpus counts as: all official ones are one family."""
    return OFFICIAL if record.corpus.official and record.profile == "superb" else record.corpus.name


def open_results(root: Path) -> Results:
    """Read every run of a results folder.

    Raises:
        UserError: there is no such folder.
    """
    runs: list[Run] = []
    broken: dict[Path, str] = {}
    for path in records.find(root):
        try:
            runs.append(Run(records.read(path), path.parent))
        except UserError as error:
            broken[path.parent] = str(error)
    return Results(root, tuple(runs), broken, tuple(_alien(root)))


def _cell(runs: list[Run]) -> RunGroup:
    newest_first = sorted(runs, key=lambda run: (run.record.started, str(run.folder)), reverse=True)
    of_seed: dict[int, Run] = {}
    for run in newest_first:
        if run.question == newest_first[0].question:
            of_seed.setdefault(run.record.seed, run)
    chosen = tuple(of_seed[seed] for seed in sorted(of_seed))
    return RunGroup(chosen, len(runs) - len(chosen))


def _alien(root: Path) -> Iterator[str]:
    """A sentence for each entry that is no run, not finished, or not ours."""
    for path in sorted(root.glob("*")) if root.is_dir() else []:
        if path.name.startswith(".") or (path.name in OWN and path.is_file()) or path.name == LAYERS:
            continue
        if path.is_dir() and not any(next(path.glob(f"*/*/{name}"), None) for name in (records.NAME, ".lock")):
            yield f"{path}: holds no run."
        else:
            yield from _strangers(path, 1)


def _strangers(path: Path, depth: int) -> Iterator[str]:
    if not path.is_dir():
        yield f"{path}: is no part of a run."
    elif depth < DEPTH:
        inside = sorted(path.glob("*"))
        for entry in inside:
            yield from _strangers(entry, depth + 1)
        if not inside:
            yield f"{path}: is empty."
    elif not (path / records.NAME).exists():
        yield f"{path}: an unfinished run; the command that began it takes it up again."
