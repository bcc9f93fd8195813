"""Does a results folder still say what it says? Scores are computed again, and everything behind them is compared.

For each run: the files beside its record are those that it names; its figures follow from its predictions; the recipe,
the code, the upstream's weights and the corpus are those it was made with, as far as they are at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from superb_eval import audio
from superb_eval.console import Reporter, Silent
from superb_eval.errors import UserError
from superb_eval.results.checks import CHECKS, Check, Said, Scope, World
from superb_eval.results.folder import Run, open_results


@dataclass(frozen=True)
class Finding:
    """Something about a run that no longer holds; a remark is only worth knowing."""

    folder: Path
    what: str
    says: str
    remark: bool = False

    def __str__(self) -> str:
        return f"{'note ' if self.remark else 'WRONG'} {self.folder}: {self.what}: {self.says}"


@dataclass(frozen=True)
class Report:
    """What `verify` found, and how many runs it looked at."""

    findings: tuple[Finding, ...]
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


def verify(results: Path, scope: Scope | None = None, reporter: Reporter | None = None) -> Report:
    """Check every run of a results folder.

    Raises:
        UserError: there is no such folder.
    """
    scope, reporter = scope or Scope(), reporter or Silent()
    audio.read_again()
    opened = open_results(results)
    world = World(scope)
    findings = [Finding(results, "folder", sentence, remark=True) for sentence in opened.strangers]
    findings += [Finding(folder, "record", sentence) for folder, sentence in opened.broken.items()]
    with reporter.stage("verifying", len(opened.runs)) as update:
        for done, run in enumerate(opened.runs, start=1):
            for what, check in CHECKS.items():
                findings += [Finding(run.folder, what, *said) for said in _said(check, run, world)]
            update(done, f"{run.record.upstream.address} {run.record.task}")
    return Report(tuple(findings), len(opened.runs) + len(opened.broken))


def _said(check: Check, run: Run, world: World) -> Iterator[Said]:
    try:
        yield from check(run, world)
    except UserError as error:
        yield (str(error),)
