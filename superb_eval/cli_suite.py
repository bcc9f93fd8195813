"""The commands that run many cells: `suite`, and `plan`, which only says what `suite` would do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from superb_eval.errors import UserError

if TYPE_CHECKING:
    from superb_eval.suite.events import Outcome
    from superb_eval.suite.plan import Plan

Upstreams = Annotated[str, typer.Option("-u", "--upstreams", metavar="A,B,...", help="addresses, as `run` takes them")]
Tasks = Annotated[str, typer.Option("--tasks", metavar="TASK,...", help="such as ks,sid; or all")]
Data = Annotated[
    Path | None, typer.Option("--data", help="official corpora or a folder of manifests; default: the embedded corpus")
]
Profile = Annotated[
    Literal["superb", "mini", "nano"] | None,
    typer.Option(help="which recipes; default: superb where DATA is official, else mini"),
]
Seeds = Annotated[int, typer.Option(min=1, help="seeds 0, 1, ... of each cell")]
Out = Annotated[Path, typer.Option(help="results folder")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--override", metavar="KEY=VALUE", help="change every recipe, or with TASK:KEY=VALUE that of one task"
    ),
]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="where upstreams and heads run")]
Store = Annotated[Path | None, typer.Option(help="feature store; default: $SUPERB_EVAL_STORE or the user's cache")]
StoreGb = Annotated[float | None, typer.Option(min=0, help="size budget of the store in GB; default 50")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="cells at a time, each on its share of the cores; default: one per core, 1 on cuda"),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (suite, plan):
        app.command()(command)


def suite(
    upstreams: Upstreams,
    tasks: Tasks = "all",
    data: Data = None,
    profile: Profile = None,
    seeds: Seeds = 1,
    out: Out = Path("results"),
    override: Overrides = None,
    device: Device = "cpu",
    store: Store = None,
    store_gb: StoreGb = None,
    jobs: Jobs = None,
) -> None:
    """Run tasks x upstreams: a plan first, then every missing cell; finished ones are kept.

    A cell that fails is reported at the end and stops no other. The same command takes up what was interrupted.

    \b
    superb-eval suite -u fbank,hubert_mini@random --tasks all --profile mini
    superb-eval suite -u fbank_nonorm --data my-corpus -o "ic:head.slots=[size, roast]"
    superb-eval suite -u hubert,s3prl:wav2vec2 --tasks ks,sid,asv --data /path/to/corpora --seeds 3
    """
    from superb_eval.console import Terminal
    from superb_eval.suite import live, local
    from superb_eval.suite.run import run

    workers = jobs or _default(device)
    request = _planned(upstreams, tasks, data, profile, seeds, out, override, device, store, store_gb, workers)
    if not request.missing:
        print(f"nothing to run. superb-eval table {out}")
        return
    outcome = run(
        request,
        local.Local(workers),
        lambda so_far, total: live.shown(live.Board(total, min(workers, max(1, total)), so_far)),
        Terminal(),
    )
    _report(outcome, out)


def plan(
    upstreams: Upstreams,
    tasks: Tasks = "all",
    data: Data = None,
    profile: Profile = None,
    seeds: Seeds = 1,
    out: Out = Path("results"),
    override: Overrides = None,
    device: Device = "cpu",
    store: Store = None,
    store_gb: StoreGb = None,
    jobs: Jobs = None,
) -> None:
    """Say what `suite` would do: cells, audio hours, size of the feature store, time; run nothing.

    \b
    superb-eval plan -u fbank,hubert_mini@random --tasks all --profile mini
    """
    workers = jobs or _default(device)
    _planned(upstreams, tasks, data, profile, seeds, out, override, device, store, store_gb, workers)


def _planned(
    upstreams: str,
    tasks: str,
    data: Path | None,
    profile: str | None,
    seeds: int,
    out: Path,
    override: list[str] | None,
    device: str,
    store: Path | None,
    store_gb: float | None,
    workers: int,
) -> Plan:
    from superb_eval.console import Terminal
    from superb_eval.suite import plan as plans
    from superb_eval.suite.jobs import Request

    overrides, names = tuple(override or ()), tuple(part.strip() for part in upstreams.split(",") if part.strip())
    wanted = tuple(tasks.replace(",", " ").split())
    request = Request(names, wanted, data, profile, overrides, seeds, out, device, store, store_gb)
    made = plans.sort(request)
    if made.missing:
        plans.examine(made, Terminal())
    print("\n".join(plans.describe(made, workers)), flush=True)
    return made


def _default(device: str) -> int:
    from superb_eval.suite import local

    return 1 if device == "cuda" else local.cores()


def _report(outcome: Outcome, out: Path) -> None:
    """Say what failed, and end accordingly: 2 where users can mend all of it, 1 where something broke."""
    done, kept = len(outcome.finished), len(outcome.kept)
    print(f"{done} cell(s) run, {kept} kept, {len(outcome.failed)} failed. superb-eval table {out}")
    for failed in outcome.failed:
        where = f" (log: {failed.log})" if failed.log else ""
        print(f"failed: {failed.job}: {failed.sentence}{where}", file=sys.stderr)
    if any(not failed.mendable for failed in outcome.failed):
        sys.exit(1)
    if outcome.failed:
        raise UserError(f"{len(outcome.failed)} cell(s) failed; see above. The same command runs them again.")
