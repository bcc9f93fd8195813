"""The commands that share results: `merge`, and `export` to the formats and places of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from superb_eval.cli.command import LenientCommand
from superb_eval.cli.options import Historical, Results
from superb_eval.cli.sections import COMPARE
from superb_eval.errors import UserError
from superb_eval.runtime.screen import show, visible


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (merge, export):
        app.command(cls=LenientCommand, rich_help_panel=COMPARE)(command)


def merge(
    contributions: Annotated[
        list[str],
        typer.Argument(metavar="FOLDER", help="results folders; NAME=FOLDER names who made the runs"),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="results folder to copy them into")],
    keep_first: Annotated[
        bool, typer.Option("--keep-first", help="of runs that differ, keep that of the folder named first")
    ] = False,
) -> None:
    """Merge results folders of several people: copy their finished runs into one, and keep where each came from.

    A run that two folders hold with the same figures is copied once; with other figures, nothing is copied and both are
    named. `verify` and `report` show who made which run. Logs, costs and layer analyses stay where they are.

    \b
    superb-eval merge anna=/shared/anna/results ben=/shared/ben/results --out merged
    superb-eval table merged
    """
    from superb_eval.results.merge import Contribution
    from superb_eval.results.merge import merge as merge_results

    summary = merge_results([Contribution.parse(text) for text in contributions], out, keep_first)
    for problem in summary.left_out:
        show(f"left out: {visible(problem)}", error=True)
    show(f"{visible(str(summary))} superb-eval table {out}")


def export(
    results: Results = Path("results"),
    model_card: Annotated[
        str | None, typer.Option(metavar="NAME", help="print the model-index of an upstream for its model card (YAML)")
    ] = None,
    submission: Annotated[
        str | None, typer.Option(metavar="NAME", help="write an upstream's predictions as the leaderboard takes them")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="folder of the submission")] = Path("submission"),
    historical: Historical = False,
    hub: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="push model card and records of the upstream to this model repository"),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="make a new repository public; default: private")] = False,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="push predictions too; they hold the test set's labels and texts")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what --hub would push; needs no network")] = False,
) -> None:
    """Export results: to a Hugging Face model card, to a repository on the Hugging Face Hub, or to the leaderboard.

    --hub makes the repository where there is none, and adds one commit. A README.md that is there keeps its text: only
    our section and our results in its metadata are replaced. No folder of this machine is named.

    \b
    superb-eval export results/ --model-card hubert_mini > index.yaml
    superb-eval export results/ --model-card hubert_mini --hub my-org/my-encoder --dry-run
    superb-eval export results/ --submission hubert --historical --out submission
    """
    from superb_eval.export import submission as submissions
    from superb_eval.export.model_card import model_index

    protocol: Literal["strict", "historical"] = "historical" if historical else "strict"
    if model_card is None and submission is None and hub is None:
        raise UserError("export: nothing to write: give --model-card NAME, --hub ORG/NAME, or --submission NAME.")
    if hub is None and (public or predictions or dry_run):
        raise UserError("--public, --predictions and --dry-run are for --hub ORG/NAME.")
    if hub is not None:
        _push(results, model_card, protocol, hub, public, predictions, dry_run)
    elif model_card is not None:
        show(model_index(results, model_card, protocol), end="")
    if submission is not None:
        for path in submissions.write(results, submission, protocol, out):
            show(path)


def _push(
    results: Path,
    name: str | None,
    protocol: Literal["strict", "historical"],
    repository: str,
    public: bool,
    predictions: bool,
    dry_run: bool,
) -> None:
    """Push results to the hub and print the URL, or print what would be pushed."""
    from superb_eval.export import hub

    prepared = hub.prepare(results, name, protocol, predictions)
    show(prepared.describe() if dry_run else hub.push(prepared, repository, public))
