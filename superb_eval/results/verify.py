"""Verifies a results folder: scores are computed again, and everything behind them is compared with the records.

For each run: its files are those that its record names; its figures follow from its predictions; the recipe, the
code, the upstream's weights and the corpus are those it was made with, as far as they are available.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from superb_eval.data import audio
from superb_eval.errors import UserError
from superb_eval.results import origin as origins
from superb_eval.results.folder import Run, open_results
from superb_eval.results.verify_checks import CHECKS, Check, CheckResult, Scope, VerifyContext
from superb_eval.runtime import system_errors
from superb_eval.runtime.progress import NoProgress, Progress


@dataclass(frozen=True)
class VerifyFinding:
    """Something about a run that no longer matches its record; a remark is no fault. `check` is a name of `CHECKS`."""

    folder: Path
    check: str
    message: str
    remark: bool = False

    def __str__(self) -> str:
        return f"{'note ' if self.remark else 'WRONG'} {self.folder}: {self.check}: {self.message}"


@dataclass(frozen=True)
class VerifyReport:
    """The findings of `verify`, how many runs were checked, and who made how many of them (`origin.contributors`)."""

    findings: tuple[VerifyFinding, ...]
    checked: int
    contributors: str = ""

    def faulty_folders(self) -> set[Path]:
        """Return the folders of the runs that have a finding that is no remark."""
        return {finding.folder for finding in self.findings if not finding.remark}

    def faulty(self) -> int:
        """Return how many runs have a finding that is no remark."""
        return len(self.faulty_folders())

    def summary(self) -> str:
        """Return in a sentence how many runs were checked, and how many have findings of which checks."""
        folders: dict[str, set[Path]] = {}
        for finding in self.findings:
            if not finding.remark:
                folders.setdefault(finding.check, set()).add(finding.folder)
        checks = ", ".join(f"{check} {len(runs)}" for check, runs in folders.items())
        found = f"{self.faulty()} with findings{f' ({checks})' if checks else ''}."
        people = f" Merged from: {self.contributors}." if self.contributors else ""
        return f"{self.checked} run(s) checked, {found}{people}"


def verify(results: Path, scope: Scope | None = None, progress: Progress | None = None) -> VerifyReport:
    """Check every run of a results folder.

    Raises:
        UserError: there is no such folder.
    """
    scope, progress = scope or Scope(), progress or NoProgress()
    audio.forget_digests()
    opened = open_results(results)
    context = VerifyContext(scope)
    findings = [VerifyFinding(results, "unexpected", sentence, remark=True) for sentence in opened.unexpected]
    findings += [VerifyFinding(folder, "record", sentence) for folder, sentence in opened.unreadable.items()]
    with progress.step("verifying", len(opened.finished)) as update:
        for done, run in enumerate(opened.finished, start=1):
            for name, check in CHECKS.items():
                findings += [VerifyFinding(run.folder, name, *result) for result in _run_check(check, run, context)]
            update(done, f"{run.record.upstream.address} {run.record.task}")
    contributors = origins.contributors(run.folder for run in opened.finished)
    return VerifyReport(tuple(findings), len(opened.finished) + len(opened.unreadable), contributors)


def _run_check(check: Check, run: Run, context: VerifyContext) -> Iterator[CheckResult]:
    try:
        yield from check(run, context)
    except UserError as error:
        yield (str(error),)
    except OSError as error:  # of a folder or a name that the record gives
        sentence = system_errors.sentence(error)
        if sentence is None:
            raise
        yield (sentence,)
