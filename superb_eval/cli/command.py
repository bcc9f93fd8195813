"""A command of the command line: the other spellings of its options that people type, and help in plain words."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand

from superb_eval.errors import UserError

SPELLINGS = {
    "--out": ("-o", "--output", "--output-path", "--output-dir"),
    "--upstream": ("--model", "--models", "--upstreams"),
    "--upstreams": ("--upstream", "--model", "--models"),
    "--tasks": ("--task",),
}
"""Spellings of other tools, or of a neighbouring command, that an option is accepted under where they have no other
meaning; help teaches the first one. `-o` is an override of the recipe where a command has one."""


class LenientCommand(TyperCommand):
    """A command whose options may be spelled as in `SPELLINGS`, and with underscores."""

    def make_parser(self, ctx: Any) -> Any:  # click's types, or those of typer's copy of it
        """Return the parser of the command's options, with their other spellings."""
        parser = super().make_parser(ctx)
        params = self.get_params(ctx)
        taken = {spelling for param in params for spelling in (*param.opts, *param.secondary_opts)}
        for param in params:
            for spelling in _other_spellings(param):
                if spelling not in taken:
                    taken.add(spelling)
                    other = copy.copy(param)
                    other.opts, other.secondary_opts = [spelling], []
                    other.add_to_parser(parser, ctx)
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of a command line.

        Raises:
            UserError: a choice of two options, such as --fresh and --resume, is made both ways.
        """
        for param in self.params:
            given = [next((o for o in options if o in args), "") for options in (param.opts, param.secondary_opts)]
            if all(given):
                raise UserError(f"{' and '.join(given)} exclude each other. Give one of them.")
        return super().parse_args(ctx, [_in_home(word) for word in args])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments by their names alone, and the options with limits in words."""
        kinds: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                name = _argument(param) if param.param_type_name == "argument" else record[0]
                kinds[param.param_type_name].append((name, _limits_in_words(record[1])))
        for kind, records in kinds.items():
            if records:
                with formatter.section(f"{kind.capitalize()}s"):
                    formatter.write_dl(records)


def _in_home(word: str) -> str:
    """Return `--out=~/results` with the home folder, which bash leaves to the program."""
    option, _, value = word.partition("=")
    return f"{option}={os.path.expanduser(value)}" if option.startswith("--") and value.startswith("~") else word


def _limits_in_words(text: str) -> str:
    return re.sub(r"(\d+)<=x<=(\d+)", r"\1 to \2", text).replace("x>=", "at least ")


def _argument(param: Any) -> str:
    return f"{param.metavar or param.name}{'' if param.nargs == 1 else '...'}"


def _other_spellings(param: Any) -> Iterator[str]:
    """Yield the spellings of an option that help doesn't show."""
    others = [spelling for option in param.opts for spelling in SPELLINGS.get(option, ())]
    yield from others
    yield from (f"--{long[2:].replace('-', '_')}" for long in (*param.opts, *others) if long.startswith("--"))
