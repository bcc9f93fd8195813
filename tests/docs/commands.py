"""A command line against the real one: its options exist, and so do the recipes, tasks and upstreams that it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import typer

from downstreams import registry as tasks
from superb_eval import recipe
from superb_eval.cli.app import app
from superb_eval.pretraining.recipe import DistillationRecipe, PretrainRecipe
from superb_eval.pretraining.recipe import load as load_training
from superb_eval.suite import jobs
from upstreams import registry

STANDS_FOR = re.compile(r"^[A-Z]+([@:,./].*)?$")
"""A word such as NAME or ADDRESS, which readers replace."""


def parse(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the command that a line calls, such as `upstream check`, and its arguments by name; run nothing.

    Raises:
        click.ClickException: there is no such command or option, or an argument has the wrong form.
    """
    command = _root()
    context: Any = None
    names, rest = [], list(words[1:])
    while hasattr(command, "resolve_command"):
        context = command.make_context(" ".join(names) or words[0], rest, parent=context)
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        names.append(name)
    context = command.make_context(names[-1], rest, parent=context)
    return " ".join(names), context.params


FOLDERS = {"my-checkpoint"}
"""Folders of weights that documents open by their names alone; `test_walk` makes them."""


def check(words: Sequence[str], whole: bool = True) -> None:
    """Check a line: it can be parsed, and what it names is there. One that is not `whole` may leave arguments out.

    Raises:
        click.ClickException, UserError: what is wrong.
    """
    try:
        command, given = parse(words)
    except Exception as error:
        # A sentence may name a command without all that it takes; options that it does name are looked at first.
        if whole or type(error).__name__ != "MissingParameter":
            raise
        return
    overrides = given.get("override") or ()
    for address in _addresses(command, given):
        _check_address(address)
    if command == "run" and not STANDS_FOR.match(given["task"]):
        recipe.load(recipe.find(given["task"], given["profile"] or _profile(given["task"])), overrides)
    if command in ("suite", "plan"):
        names = given["tasks"].replace(",", " ").split()
        request = jobs.SuiteConfig(("fbank",), tuple(names), None, given["profile"], tuple(overrides))
        for job in jobs.expand(request):
            recipe.load(recipe.find(job.task, job.profile), job.overrides)
    if command in ("pretrain", "distill"):
        schema = PretrainRecipe if command == "pretrain" else DistillationRecipe
        load_training(given["recipe"], command, schema, overrides)
    if command.startswith("corpus") and "task" in given and not STANDS_FOR.match(given["task"]):
        tasks.get(given["task"])


@cache
def _root() -> Any:
    return typer.main.get_command(app)


def _profile(task: str) -> str:
    return "superb" if task in jobs.SUPERB else "mini"


def _addresses(command: str, given: dict[str, Any]) -> list[str]:
    """The upstreams that a line names."""
    found = [given.get(key) for key in ("upstream", "address", "teacher")]
    found += (given.get("upstreams") or "").split(",") if command in ("suite", "plan") else []
    found += given["names"] if command == "cost" else []
    found += [given["name"]] if command in ("quick", "layers", "upstream show") else []
    return [address for address in found if address and not STANDS_FOR.match(address)]


def _check_address(text: str) -> None:
    if text in FOLDERS:
        return
    address = registry.parse(text)
    if address.scheme is None:
        # Entry points of other packages are none of ours, and documents show one.
        assert address.name in {*registry.names(), "their_encoder", "my_encoder"}, f"no upstream is called {text}"
    else:
        schemes = {"checkpoint", "hf", "s3prl", "torchaudio", "units"}
        assert address.scheme in schemes or address.scheme.endswith(".py"), text
