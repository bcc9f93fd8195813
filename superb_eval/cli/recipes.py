"""The commands about tasks and recipes: `task list`, and `recipe list`, `show`, `copy` and `rates`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from superb_eval.cli.command import LenientCommand
from superb_eval.cli.options import Overrides
from superb_eval.errors import UserError
from superb_eval.runtime.screen import show


def register(task_app: typer.Typer, recipe_app: typer.Typer) -> None:
    """Add the commands to the command line."""
    task_app.command("list", cls=LenientCommand)(task_list)
    recipe_app.command("list", cls=LenientCommand)(recipe_list)
    recipe_app.command("copy", cls=LenientCommand)(recipe_copy)
    recipe_app.command("rates", cls=LenientCommand)(recipe_rates)
    recipe_app.command("show", cls=LenientCommand)(recipe_show)


def task_list() -> None:
    """List the tasks: what each is, its metric and the label columns that it reads."""
    from downstreams import registry

    for name in registry.names():
        task = registry.get(name)
        metrics = ", ".join(f"{m.heading} {'↑' if m.higher_is_better else '↓'}" for m in task.metrics)
        show(f"{name:<8}{task.title:<24}{metrics:<12}columns: {', '.join(task.columns)}")


def recipe_list() -> None:
    """List the shipped recipes, with what each is for."""
    from superb_eval import recipe

    paths = recipe.shipped((*recipe.PROFILES, "pretrain", "distill"))
    width = max(map(len, paths))
    for path in paths:
        show(f"{path:<{width}}  {recipe.heading(recipe.folder().parent / path)}")


def recipe_copy(
    name: Annotated[str, typer.Argument(metavar="TASK|RECIPE", help="a task such as ks, or a shipped recipe's path")],
    profile: Annotated[
        Literal["superb", "mini", "nano", "pretrain", "distill"], typer.Option(help="which recipe of that name")
    ] = "superb",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="file to write; default: here, under its name")
    ] = None,
) -> None:
    """Copy a shipped recipe, comments included, to change and run: superb-eval run ./ks.yaml.

    \b
    superb-eval recipe copy ks --profile mini --out my-ks.yaml
    superb-eval recipe copy hubert_mini --profile pretrain
    """
    from superb_eval import recipe
    from superb_eval.runtime import atomic_files

    source = recipe.find(name, profile)
    target = out or Path(source.name)
    if not atomic_files.create_text(target, source.read_text(encoding="utf8")):
        raise UserError(f"{target}: exists. Give another file with --out.")
    show(f"{target}: a copy of {source}")


def recipe_rates(task: Annotated[str, typer.Argument(metavar="TASK", help="a task such as sid")]) -> None:
    """List learning rates reported to have worked for a task, with their sources: a first guess for -o train.lr.

    \b
    superb-eval recipe rates sid
    superb-eval run sid -u hubert --data DIR -o 'train.lr={sweep: [1e-1, 1e-2, 1e-3]}'
    """
    import csv

    from superb_eval import recipe

    with (recipe.folder() / recipe.RATES).open(encoding="utf8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == task]
    for row in rows:
        figure = f" gave {row['figure']}" if row["figure"] else ""
        show(f"{row['upstream']} on {task}: lr {float(row['lr']):g}{figure} ({row['source']})")
    if not rows:
        show(f"no rate is known for {task}")


def recipe_show(
    task: Annotated[str, typer.Argument(metavar="TASK|RECIPE", help="a task such as ks, or a recipe file")],
    profile: Annotated[Literal["superb", "mini", "nano"], typer.Option(help="which recipe of the task")] = "superb",
    override: Overrides = None,
) -> None:
    """Show a recipe as resolved: with overrides applied and defaults filled in.

    \b
    superb-eval recipe show ks --profile mini
    superb-eval recipe show recipes/mini/ks.yaml -o train.steps=100
    """
    import yaml

    from superb_eval import recipe

    resolved = recipe.load(recipe.find(task, profile), override or ())
    show(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
