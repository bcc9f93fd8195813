"""The command line: commands only. Every heavy import is inside a command, so that `--help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from superb_eval.cli import corpora, distillation, pretraining, report, results, suite, upstreams
from superb_eval.errors import UserError

if TYPE_CHECKING:
    from superb_eval.results.record import RunRecord

USER_ERROR, INTERRUPTED = 2, 130
"""Exit codes beside 0 (done) and 1 (something broke: a traceback follows)."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    help="""Evaluate speech encoders, SUPERB style: frozen upstream, weighted sum of layers, one head per task.

\b
  superb-eval run ks -u fbank_nonorm                        # embedded synthetic corpus
  superb-eval run ks -u s3prl:fbank --data my-corpus        # a folder of manifests
  superb-eval run ks -u hubert --data /path/to/corpora      # official corpus and protocol
  superb-eval suite -u fbank,hubert_mini@random --tasks all # many cells
  superb-eval table results/
  superb-eval upstream check path/to/file.py:MyEncoder
""",
)
upstream_app = typer.Typer(no_args_is_help=True, help="List, show and check upstreams; begin a new one; export one.")
task_app = typer.Typer(no_args_is_help=True, help="List tasks.")
recipe_app = typer.Typer(no_args_is_help=True, help="List and show recipes.")
corpus_app = typer.Typer(no_args_is_help=True, help="Check a corpus, export one, or synthesise the embedded one.")
for name, group in {"upstream": upstream_app, "task": task_app, "recipe": recipe_app, "corpus": corpus_app}.items():
    app.add_typer(group, name=name)
corpora.register(corpus_app)
distillation.register(app, upstream_app)
upstreams.register(app, upstream_app)

Upstream = Annotated[
    str, typer.Option("-u", "--upstream", help="NAME, NAME@FILE, NAME@random, hf:FOLDER, s3prl:NAME, FILE.py:Class")
]
Data = Annotated[
    Path | None, typer.Option("--data", help="official corpora or a folder of manifests; default: the embedded corpus")
]
Profile = Annotated[
    Literal["superb", "mini", "nano"] | None,
    typer.Option(help="which recipe of the task; default: superb where DATA is official, else mini"),
]
Overrides = Annotated[
    list[str] | None, typer.Option("-o", "--override", metavar="KEY=VALUE", help="change the recipe: -o train.lr=1e-3")
]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="where the upstream and the head run")]


@app.command()
def run(
    task: Annotated[str, typer.Argument(metavar="TASK|RECIPE", help="a task such as ks, or a recipe file")],
    upstream: Upstream,
    data: Data = None,
    profile: Profile = None,
    out: Annotated[Path, typer.Option(help="results folder")] = Path("results"),
    override: Overrides = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="of initialisation and sampling, default 0; several: each in turn")
    ] = None,
    device: Device = "cpu",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="run again instead of resuming (stored features are kept)")
    ] = False,
    store: Annotated[
        Path | None, typer.Option(help="feature store; default: $SUPERB_EVAL_STORE or the user's cache")
    ] = None,
    store_gb: Annotated[float | None, typer.Option(min=0, help="size budget of the store in GB; default 50")] = None,
) -> None:
    """Run one cell: a task on an upstream. Resumes what was interrupted; a finished run is kept.

    \b
    superb-eval run ks -u fbank_nonorm
    superb-eval run recipes/mini/ks.yaml -u hubert_mini@random -o train.lr=1e-2 --seed 1
    superb-eval run asr -u fbank_nonorm --seed 0 --seed 1 --seed 2 -o train.order_seed=0   # all hear the same pass
    superb-eval run ks -u my_encoder.py:MyEncoder --data my-corpus --out results
    """
    from superb_eval.runs.config import RunConfig
    from superb_eval.runs.evaluate import evaluate_seeds
    from superb_eval.runtime.progress import TerminalProgress

    seeds = seed or [0]
    order = RunConfig(
        upstream, task, data, profile, tuple(override or ()), seeds[0], out, device, fresh, store, store_gb
    )
    for record, folder in evaluate_seeds(order, seeds, TerminalProgress()):
        _show(record, folder, f" seed {record.seed}" if len(seeds) > 1 else "")


def _show(record: RunRecord, folder: Path, beside: str) -> None:
    """Print what a cell came to."""
    for metric in record.metrics:
        interval = f"95 % interval {metric.low:.2f} to {metric.high:.2f}"
        figure = f"{metric.heading} {metric.value:.2f} {metric.unit}"
        print(f"{record.task}{beside} {figure} ({interval}, {metric.protocol}, {metric.units} test units)")
    if record.chance is not None:
        print(f"chance: {record.chance:.2f}")
    print(f"record: {folder / 'result.json'}")


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a finished run's folder, the one with result.json")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="audio files, or folders of them")],
    device: Device = "cpu",
) -> None:
    """Use the head of a finished run: print its answer for audio files, one line each.

    \b
    superb-eval predict results/fbank_nonorm/ks/mini-seed0-1a2b3c4d5e one.wav two.flac
    """
    from superb_eval.runs import predict as predict_module

    for path, answer in predict_module.predict(run, files, device).items():
        print(f"{path}\t{answer}")


@task_app.command("list")
def task_list() -> None:
    """List the tasks: what each is, its metric and the label columns that it reads."""
    from downstreams import registry

    for name in registry.names():
        task = registry.get(name)
        metrics = ", ".join(f"{m.heading} {'↑' if m.higher_is_better else '↓'}" for m in task.metrics)
        print(f"{name:<8}{task.title:<24}{metrics:<12}columns: {', '.join(task.columns)}")


@recipe_app.command("list")
def recipe_list() -> None:
    """List the shipped recipes."""
    from superb_eval import recipe

    print("\n".join(recipe.shipped((*recipe.PROFILES, "pretrain", "distill"))))


@recipe_app.command("rates")
def recipe_rates(task: Annotated[str, typer.Argument(help="a task such as sid")]) -> None:
    """List learning rates reported to have worked for a task, with their sources: a first guess for -o train.lr=...

    \b
    superb-eval recipe rates sid
    superb-eval run sid -u hubert --data DIR -o 'train.lr={sweep: [1e-1, 1e-2, 1e-3]}'
    """
    from superb_eval import rates

    print("\n".join(map(str, rates.known(task))) or f"no rate is known for {task}")


@recipe_app.command("show")
def recipe_show(
    task: Annotated[str, typer.Argument(metavar="TASK|RECIPE", help="a task such as ks, or a recipe file")],
    profile: Profile = None,
    override: Overrides = None,
) -> None:
    """Show a recipe as resolved: with overrides applied and defaults filled in.

    \b
    superb-eval recipe show ks --profile superb
    superb-eval recipe show recipes/mini/ks.yaml -o train.steps=100
    """
    import yaml

    from superb_eval import recipe

    resolved = recipe.load(recipe.find(task, profile or "superb"), override or ())
    print(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")


app.command()(pretraining.pretrain)


@app.command()
def doctor() -> None:
    """Say what works here, and what to install for what does not."""
    from superb_eval.features.store import default_folder
    from superb_eval.runtime import environment

    for finding in environment.examine(default_folder()):
        print(f"{'ok  ' if finding.works else 'no  '}{finding.what:<24}{finding.detail}")
        if finding.remedy and not finding.works:
            print(f"{'':<28}{finding.remedy}")


results.register(app)
report.register(app)
suite.register(app)


def main() -> None:
    """Run the command line: a user's mistake is one sentence and exit code 2, never a traceback."""
    try:
        app()
    except UserError as error:
        print(f"superb-eval: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        print("superb-eval: interrupted; the same command takes it up again.", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
