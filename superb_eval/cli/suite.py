"""The commands of many runs: `suite`, `plan`, which only prints what `suite` would do, and `board`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from superb_eval.cli.command import LenientCommand
from superb_eval.cli.options import (
    Data,
    Device,
    Jobs,
    Limit,
    Loggers,
    MaxGb,
    Out,
    Profile,
    Results,
    Resume,
    Seeds,
    Store,
    StoreGb,
    TasksOrAll,
    named_loggers,
)
from superb_eval.cli.sections import EVALUATE
from superb_eval.errors import UserError
from superb_eval.runtime.screen import show

if TYPE_CHECKING:
    from superb_eval.suite.events import Scheduler, SuiteOutcome
    from superb_eval.suite.plan import Plan

Upstreams = Annotated[
    str,
    typer.Option("-u", "--upstreams", metavar="A,B,...", help="addresses, as `run` takes them"),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--override",
        metavar="KEY=VALUE",
        help="change every recipe, or with TASK:KEY=VALUE that of one task; repeatable",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS|local", help="execute runs on a Ray cluster, or start one here (extra `ray`)"
    ),
]
Slurm = Annotated[bool, typer.Option("--slurm", help="execute runs as job arrays of SLURM")]
SlurmOptions = Annotated[
    str, typer.Option("--slurm-options", metavar='"--partition=gpu ..."', help="passed to sbatch unchanged")
]
Demands = Annotated[
    str, typer.Option("--demand", metavar="cpu=1,gpu=0,memory_gb=0", help="what a run needs on Ray and SLURM")
]
Retries = Annotated[
    int, typer.Option(min=0, metavar="N", help="how often a run whose process or machine died is tried again")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (suite, plan, board):
        app.command(cls=LenientCommand, rich_help_panel=EVALUATE)(command)


def suite(
    upstreams: Upstreams,
    tasks: TasksOrAll = "all",
    data: Data = None,
    profile: Profile = None,
    seeds: Seeds = (0,),
    out: Out = Path("results"),
    override: Overrides = None,
    limit: Limit = None,
    device: Device = "cpu",
    store: Store = None,
    store_gb: StoreGb = None,
    max_gb: MaxGb = None,
    jobs: Jobs = None,
    ray: Ray = None,
    slurm: Slurm = False,
    slurm_options: SlurmOptions = "",
    demand: Demands = "",
    retries: Retries = 2,
    loggers: Loggers = "",
    resume: Resume = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and run nothing, as `plan` does")] = False,
) -> None:
    """Run tasks x upstreams: a plan first, then every missing run; finished ones are skipped.

    A run that fails is reported at the end and stops no other. The same command resumes what was interrupted. A run
    that runs out of memory beside others waits, and continues with fewer of them, at last alone. Several
    suites may share one results folder: each run is executed by one of them. `superb-eval board OUT` shows them all.

    \b
    superb-eval suite -u fbank_nonorm,hubert_mini@random --tasks all --profile mini
    superb-eval suite -u fbank_nonorm --data my-corpus -o "ic:head.slots=[size, roast]"
    superb-eval suite -u hubert,s3prl:wav2vec2 --tasks ks,sid,asv --data /path/to/corpora --seeds 3
    superb-eval suite -u hubert --data /path/to/corpora --limit 20 -o train.steps=50   # a try of everything
    superb-eval suite -u hubert --data /path/to/corpora --device cuda --jobs 4
    superb-eval suite -u hubert --device cuda --ray auto --demand cpu=4,gpu=0.5
    superb-eval suite -u hubert --device cuda --slurm --slurm-options "--partition=gpu --time=12:00:00"
    """
    del resume, max_gb  # the one is what a suite does anyway, the other is set by its callback
    from superb_eval.runtime import devices
    from superb_eval.runtime.progress import TerminalProgress
    from superb_eval.suite import progress_view
    from superb_eval.suite.executors.local import Local
    from superb_eval.suite.run import run

    if not (ray or slurm):
        devices.require(device)
    workers = jobs or _default(device)
    remote = _remote_scheduler(workers, device, ray, slurm, slurm_options, demand, at_once=jobs or 0)
    suite_plan = _planned(
        upstreams,
        tasks,
        data,
        profile,
        seeds,
        out,
        override,
        limit,
        device,
        store,
        store_gb,
        workers,
        named_loggers(loggers),
    )
    if dry_run:
        return
    if not suite_plan.missing:
        show(f"nothing to run. {_next_step(out, limit)}")
        return
    scheduler = remote or Local(workers, {each.job: each for each in suite_plan.runs}, suite_plan.memory)
    outcome = run(suite_plan, scheduler, progress_view.of_plan(suite_plan, workers), TerminalProgress(), retries)
    _report(outcome, out, _next_step(out, limit))


def plan(
    upstreams: Upstreams,
    tasks: TasksOrAll = "all",
    data: Data = None,
    profile: Profile = None,
    seeds: Seeds = (0,),
    out: Out = Path("results"),
    override: Overrides = None,
    limit: Limit = None,
    device: Device = "cpu",
    store: Store = None,
    store_gb: StoreGb = None,
    jobs: Jobs = None,
) -> None:
    """Print what `suite` would do: runs, audio hours, feature store, time of each task and of all, memory; run nothing.

    Upstreams are timed in the batches that extraction makes, heads on an update: for seconds, on noise.

    \b
    superb-eval plan -u fbank_nonorm,hubert_mini@random --tasks all --profile mini
    superb-eval plan -u hubert --profile superb --device cuda --jobs 4     # the official protocol, without its corpora
    """
    from superb_eval.runtime import devices

    devices.require(device)
    workers = jobs or _default(device)
    _planned(upstreams, tasks, data, profile, seeds, out, override, limit, device, store, store_gb, workers)


def board(
    results: Results = Path("results"),
    once: Annotated[bool, typer.Option("--once", help="print it once, as where there is no terminal")] = False,
) -> None:
    """Show what a suite has planned, is running (and where), has finished, and what failed: from any terminal.

    \b
    superb-eval board results
    """
    from superb_eval.suite import status

    status.show(results, follow=not once)


def _remote_scheduler(
    workers: int, device: str, ray: str | None, slurm: bool, slurm_options: str, demand: str, at_once: int
) -> Scheduler | None:
    """Return the executor on Ray or SLURM; None: runs are executed on this machine."""
    import shlex

    if ray and slurm:
        raise UserError("--ray and --slurm: runs go to one of them. Give one.")
    if (demand or slurm_options) and not (ray or slurm):
        raise UserError("--demand and --slurm-options are for --ray and --slurm; on one machine, --jobs.")
    if ray:
        from superb_eval.suite import resources
        from superb_eval.suite.executors.ray import Ray

        return Ray(ray, resources.parse(demand, device), workers)
    if slurm:
        from superb_eval.suite import resources
        from superb_eval.suite.executors.slurm import Slurm

        try:
            options = tuple(shlex.split(slurm_options))
        except ValueError as error:
            raise UserError(f"--slurm-options {slurm_options}: {error}. Check the quotes.") from error
        return Slurm(resources.parse(demand, device), options, at_once)
    return None


def _planned(
    upstreams: str,
    tasks: str,
    data: Path | None,
    profile: str | None,
    seeds: tuple[int, ...],
    out: Path,
    override: list[str] | None,
    limit: int | None,
    device: str,
    store: Path | None,
    store_gb: float | None,
    workers: int,
    loggers: tuple[str, ...] = (),
) -> Plan:
    from superb_eval.runtime.progress import TerminalProgress
    from superb_eval.suite.estimates import estimate
    from superb_eval.suite.jobs import SuiteConfig
    from superb_eval.suite.plan import make_plan
    from superb_eval.suite.plan_text import describe

    overrides, names = tuple(override or ()), tuple(part.strip() for part in upstreams.split(",") if part.strip())
    chosen = tuple(tasks.replace(",", " ").split())
    config = SuiteConfig(names, chosen, data, profile, overrides, seeds, out, device, store, store_gb, loggers, limit)
    suite_plan = make_plan(config)
    if suite_plan.missing:
        estimate(suite_plan, TerminalProgress(), workers)
    show("\n".join(describe(suite_plan, workers)), flush=True)
    return suite_plan


def _default(device: str) -> int:
    from superb_eval.runtime.threads import available_cores

    return available_cores() if device == "cpu" else 1


def _next_step(out: Path, limit: int | None) -> str:
    """Return the command that shows the figures; of tries, that none does."""
    if limit is None:
        return f"superb-eval table {out}"
    return f"Tables and reports leave out the runs that --limit {limit} cut: tries on few utterances."


def _report(outcome: SuiteOutcome, out: Path, next_step: str) -> None:
    """Print what failed, what finished runs warn of, and the next step.

    Exit with 2 where users can fix all of it, with 1 where something broke.
    """
    from superb_eval.results import record as records
    from superb_eval.results.stats import chance

    finished, before, failures = len(outcome.finished), len(outcome.done_before), len(outcome.failed)
    show(f"{finished} run(s) finished, {before} done before, {failures} failed. {next_step}")
    for failed in outcome.failed:
        where = f" (log: {failed.log})" if failed.log else ""
        show(f"failed: {failed.job}: {failed.message}{where}", error=True)
    jobs: dict[tuple[str, str], list[str]] = {}
    for run in outcome.finished:
        record = records.read(out / run.run / records.NAME)
        below = ["not above chance beyond its interval"] if chance.of_record(record) else []
        for warning in [*record.corpus.leaks, *record.skipped, *record.warnings, *below]:
            jobs.setdefault((record.task, warning), []).append(str(run.job))
    for (_, warning), of_jobs in jobs.items():
        more = f" and {len(of_jobs) - 1} more" if len(of_jobs) > 1 else ""
        show(f"warning: {of_jobs[0]}{more}: {warning}", error=True)
    if any(not failed.fixable for failed in outcome.failed):
        sys.exit(1)
    if outcome.failed:
        raise UserError(f"{len(outcome.failed)} run(s) failed; see above. The same command runs them again.")
