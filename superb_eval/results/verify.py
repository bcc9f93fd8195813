"""Does a results folder still say what it says? Scores are computed again, and everything behind them is compared.

For each run: the files beside its record are those that it names; its figures follow from its predictions; the recipe,
the code, the upstream's weights and the corpus are those it was made with, as far as they are at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from superb_eval.data import audio
from superb_eval.errors import UserError
from superb_eval.results.folder import Run, open_results
from superb_eval.results.verify_checks import CHECKS, Check, CheckResult, Scope, VerifyContext
from superb_eval.runtime.progress import NoProgress, Progress


@dataclass(frozen=True)
class VerifyFinding:
    """Something about a run that no longer holds; a remark is only worth knowing."""

    folder: Path
    what: str
    says: str
    remark: bool = False

    def __str__(self) -> str:
        return f"{'note ' if self.remark else 'WRONG'} {self.folder}: {self.what}: {self.says}"


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found, and how many runs it looked at."""

    findings: tuple[VerifyFinding, ...]
    checked: int

    def faulty(self) -> int:
        """Return how many runs don't hold."""
        return len({finding.folder for finding in self.findings if not finding.remark})

    def summary(self) -> str:
        """Return in a sentence how many runs were checked, and how many don't hold for which reason."""
        folders: dict[str, set[Path]] = {}
        for finding in self.findings:
            if not finding.remark:
                folders.setdefault(finding.what, set()).add(finding.folder)
        kinds = ", ".join(f"{what} {len(where)}" for what, where in folders.items())
        return f"{self.checked} run(s) checked, {self.faulty()} with findings{f' ({kinds})' if kinds else ''}."


def verify(results: Path, scope: Scope | None = None, progress: Progress | None = None) -> VerifyReport:
    """Check every run of a results folder.

    Raises:
        UserError: there is no such folder.
    """
    scope, progress = scope or Scope(), progress or NoProgress()
    audio.read_again()
    opened = open_results(results)
    world = VerifyContext(scope)
    findings = [VerifyFinding(results, "folder", sentence, remark=True) for sentence in opened.strangers]
    findings += [VerifyFinding(folder, "record", sentence) for folder, sentence in opened.broken.items()]
    with progress.step("verifying", len(opened.runs)) as update:
        for done, run in enumerate(opened.runs, start=1):
            for what, check in CHECKS.items():
                findings += [VerifyFinding(run.folder, what, *said) for said in _said(check, run, world)]
            update(done, f"{run.record.upstream.address} {run.record.task}")
    return VerifyReport(tuple(findings), len(opened.runs) + len(opened.broken))


def _said(check: Check, run: Run, world: VerifyContext) -> Iterator[CheckResult]:
    try:
        yield from check(run, world)
    except UserError as error:
        yield (str(error),)
