"""Renders a report as HTML: the template, and its filters that every text from outside passes through."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from superb_eval.report.charts import svg

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Command:
    """The command that repeats a run, its deviations from the protocol and what it skipped."""

    upstream: str
    task: str
    seed: int
    command: str
    departures: tuple[str, ...]
    skipped: tuple[str, ...]


def render(**content: Any) -> str:
    """Return the page: strings from outside are escaped, and no style or script but its own may run."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "cut": _cut,
        "day": lambda text: text[:10],
        "after": lambda text, task: text.removeprefix(task.upper()).strip(),
        "by_text": _by_text,
    }
    style, script = ((TEMPLATES / name).read_text(encoding="utf8") for name in ("report.css", "report.js"))
    return environment.get_template("report.html.j2").render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        **content,
    )


def _cut(text: object, most: int = 200) -> str:
    return svg.clean(text, most)


def _by_text(commands: Sequence[Command], attribute: str) -> list[tuple[str, str]]:
    """Each text of the runs' records, and the runs that share it."""
    runs_by_text: dict[str, list[str]] = {}
    for command in commands:
        for text in getattr(command, attribute):
            runs = runs_by_text.setdefault(text, [])
            name = f"{command.upstream} {command.task.upper()}"
            runs += [] if name in runs else [name]
    return [(text, ", ".join(runs)) for text, runs in runs_by_text.items()]


def _hash(text: str) -> str:
    """A source of a Content-Security-Policy that allows that text alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
