"""Merges results folders: copies the finished runs of several people into one, with the origin of each.

What is copied is what a record names, and the record last, so that an interrupted merge is resumed. The folders may be
anybody's: links, devices and files that a record does not vouch for are left out, and nothing in them is executed.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.results import origin as origins
from superb_eval.results import record as records
from superb_eval.results import run_files
from superb_eval.results.folder import DEPTH, MAX_LISTED, Run, run_folder
from superb_eval.results.layer_record import FOLDER as LAYERS
from superb_eval.results.origin import Origin
from superb_eval.runtime import atomic_files


@dataclass(frozen=True)
class Contribution:
    """A results folder, and who made its runs."""

    contributor: str
    folder: Path

    @classmethod
    def parse(cls, text: str) -> Contribution:
        """Return what `NAME=FOLDER` or `FOLDER` names; without a name it is the folder's.

        Raises:
            UserError: there is no such folder, or the name is empty.
        """
        name, equals, rest = text.partition("=")
        folder = Path(rest) if equals and not Path(text).is_dir() else Path(text)
        contributor = name.strip() if folder != Path(text) else folder.resolve().name
        if not folder.is_dir():
            raise UserError(f"{folder}: no such results folder. Expected FOLDER, or NAME=FOLDER.")
        if not contributor:
            raise UserError(f"{text}: the name before = is empty. Expected NAME=FOLDER.")
        return cls(contributor, folder)


@dataclass
class MergeSummary:
    """What a merge did: runs copied by contributor, runs that were there already, and a sentence for each left out."""

    copied: Counter[str] = field(default_factory=Counter)
    present: int = 0
    left_out: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        by = ", ".join(f"{name} {count}" for name, count in self.copied.items())
        copied = f"{self.copied.total()} run(s) copied{f' ({by})' if by else ''}"
        return f"{copied}, {self.present} there already, {len(self.left_out)} left out."


def merge(contributions: Sequence[Contribution], out: Path, keep_first: bool = False) -> MergeSummary:
    """Copy the finished runs of `contributions` into the results folder `out`, in this order.

    Where two have the same run with the same figures and predictions, the first is kept: the one in `out`, if it is
    there. A run that was merged before keeps its origin.

    Raises:
        UserError: two have the same run with other figures and not `keep_first`, before anything is copied; or the disk
            is full.
    """
    summary, conflicts = MergeSummary(), []
    chosen: dict[Path, Run] = dict(_runs(out, [])) if out.is_dir() else {}
    missing: dict[Path, Contribution] = {}
    for contribution in contributions:
        if out.is_dir() and contribution.folder.samefile(out):
            raise UserError(f"{out}: is merged and --out at once. Name it as --out alone.")
        for place, run in _runs(contribution.folder, summary.left_out):
            first = chosen.setdefault(place, run)
            if first is run:
                missing[place] = contribution
            elif differences := list(_differences(first, run)):
                conflicts.append(f"{run.folder} and {first.folder}: {', '.join(differences)}")
            else:
                summary.present += 1
    if conflicts and not keep_first:
        raise UserError(_refusal(conflicts))
    summary.left_out += conflicts
    for place in missing:
        _check_target(chosen[place], out / place)
    for place, contribution in missing.items():
        _copy(chosen[place], contribution, out / place)
        summary.copied[contribution.contributor] += 1
    return summary


def _refusal(conflicts: Sequence[str]) -> str:
    more = f"\n  (+{len(conflicts) - MAX_LISTED} more)" if len(conflicts) > MAX_LISTED else ""
    listed = "\n  ".join(conflicts[:MAX_LISTED])
    return f"the same run has other figures; --keep-first keeps that of the folder named first:\n  {listed}{more}"


def _runs(root: Path, left_out: list[str]) -> Iterator[tuple[Path, Run]]:
    """Yield the runs of a folder, each with its place in it; add a sentence for each that is left out."""
    for folder in _folders(root, DEPTH, left_out):
        path = folder / records.NAME
        if not os.path.lexists(path):
            continue
        try:
            run = Run(records.read(_regular(path)), folder)
            _check(run, folder.relative_to(root))
        except UserError as error:
            left_out.append(str(error))
        else:
            yield folder.relative_to(root), run


def _folders(root: Path, depth: int, left_out: list[str]) -> Iterator[Path]:
    """Yield the folders that lie `depth` levels below `root`, without following links."""
    if not depth:
        yield root
        return
    if not os.access(root, os.R_OK | os.X_OK):
        left_out.append(f"{root}: may not be read.")
        return
    with os.scandir(root) as entries:
        inside = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    for name in inside:
        if not name.startswith(".") and name != LAYERS:
            yield from _folders(root / name, depth - 1, left_out)


def _regular(path: Path) -> Path:
    """Return a path of a regular file.

    Raises:
        UserError: it is a link, a pipe, a device or a folder, isn't there, or may not be read.
    """
    try:
        regular = stat.S_ISREG(path.lstat().st_mode)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    if not regular:
        raise UserError(f"{path}: is no regular file.")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: may not be read.")
    return path


def _check(run: Run, place: Path) -> None:
    """Check that a run belongs in its place, and that its files are regular and those that its record names.

    Raises:
        UserError: it doesn't, one is not, it is a try, or its origin is damaged.
    """
    if run.record.limit is not None:
        raise UserError(f"{run.folder}: a try with --limit {run.record.limit}.")
    if place != run_folder(run.record):
        raise UserError(f"{run.folder}: its record is of another run; `superb-eval verify` checks the folder.")
    for name, digest in _digests(run).items():
        if Path(name).name != name or name in (records.NAME, origins.NAME):
            raise UserError(f"{run.folder}: its record names {name!r}, which is no file of a run.")
        if run_files.sha256(run.folder, _regular(run.folder / name).name) != digest:
            raise UserError(f"{run.folder / name}: is not the file that the run wrote.")
    if os.path.lexists(run.folder / origins.NAME):
        origins.read(_regular(run.folder / origins.NAME).parent)


def _digests(run: Run) -> dict[str, str]:
    return {**run.record.predictions, **run.record.heads}


def _differences(first: Run, second: Run) -> Iterator[str]:
    """What differs between two records of one run: figures, or predictions with equal figures."""
    figures = [{(m.key, m.protocol): m for m in run.record.metrics} for run in (first, second)]
    differ = False
    for key in figures[0].keys() | figures[1].keys():
        ours, theirs = (by_key.get(key) for by_key in figures)
        values = ["none" if m is None else f"{m.value:.4f}" for m in (theirs, ours)]
        if ours is None or theirs is None or ours.value != theirs.value:
            differ = True
            yield f"{' '.join(reversed(key))} is {values[0]} and {values[1]}"
    if not differ and first.record.predictions != second.record.predictions:
        yield "equal figures of other predictions"


def _copy(run: Run, contribution: Contribution, target: Path) -> None:
    """Copy the files of a run, its origin, and its record last."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    digest = run_files.sha256(run.folder, records.NAME)
    new = Origin(
        contributor=contribution.contributor, folder=contribution.folder.resolve().name, merged=now, record=digest
    )
    for name in _digests(run):
        _copy_file(run.folder / name, target / name)
    origins.write(origins.read(run.folder) or new, target)
    _copy_file(run.folder / records.NAME, target / records.NAME)


def _check_target(run: Run, target: Path) -> None:
    """Refuse a folder that holds other files of these names: an interrupted merge leaves equal ones.

    Raises:
        UserError: naming the file.
    """
    for name, digest in _digests(run).items():
        if run_files.exists(target, name) and run_files.sha256(target, name) != digest:
            raise UserError(
                f"{target / name}: is there, and not that of {run.folder}. Remove it, or choose another --out."
            )
    if run_files.exists(target, records.NAME):
        raise UserError(f"{target / records.NAME}: is there, and can't be read. Remove it, or choose another --out.")


def _copy_file(path: Path, target: Path) -> None:
    atomic_files.write(target, lambda temporary: shutil.copyfile(path, temporary, follow_symlinks=False))
