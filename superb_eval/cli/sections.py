"""The main help page: commands in sections, each with a whole sentence."""

from __future__ import annotations

import textwrap
from typing import Any

from typer.core import TyperCommand, TyperGroup

EVALUATE, COMPARE, UPSTREAMS, TRAIN, INSPECT = "Evaluate", "Compare", "Upstreams", "Train", "Inspect"
"""A command states its section as its `rich_help_panel`; the help page has them in this order."""

WIDTH = 100
"""Columns of the help page at most."""


class CommandGroup(TyperGroup):
    """A group whose help has a whole sentence on each command."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # click's types, or those of typer's copy of it
        """Write the commands."""
        entries = [_entry(name, self.commands[name], min(WIDTH, formatter.width)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write("".join(entries))


class SectionedGroup(TyperGroup):
    """A group whose help lists its commands by section."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections.

        Raises:
            ValueError: a command belongs to none of them.
        """
        sections: dict[str, list[str]] = {name: [] for name in (EVALUATE, COMPARE, UPSTREAMS, TRAIN, INSPECT)}
        for name in self.list_commands(ctx):
            command = self.commands[name]
            section = command.rich_help_panel if isinstance(command, TyperCommand | TyperGroup) else None
            if section not in sections:
                raise ValueError(f"{name}: its rich_help_panel is {section}, which is none of {', '.join(sections)}")
            sections[section].append(_entry(name, command, min(WIDTH, formatter.width)))
        for section, entries in sections.items():
            with formatter.section(section):
                formatter.write("".join(entries))


def _entry(name: str, command: Any, width: int) -> str:
    """Return a command's name and the first sentence of its help, wrapped to a width in columns."""
    paragraph = " ".join((command.help or "").partition("\n\n")[0].split())
    sentence = paragraph.partition(". ")[0].rstrip(".") + "."
    wrapped = textwrap.wrap(sentence, width, initial_indent=f"  {name:<10}", subsequent_indent=" " * 12)
    return "\n".join(wrapped) + "\n"
