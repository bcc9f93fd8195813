"""From what a report shows to HTML: the template, and what is done to every text on its way into it."""

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
    """How to make a cell again, and what is to be known of it."""

    upstream: str
    task: str
    seed: int
    command: str
    departures: tuple[str, ...]
    skipped: tuple[str, ...]


def render(**content: Any) -> str:
    """Return the page: every string from outside is escaped, and nothing but its own style and script may run."""
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


def _by_text(commands: Sequence[Command], what: str) -> list[tuple[str, str]]:
    """Each sentence that cells' records share, and the cells."""
    found: dict[str, list[str]] = {}
    for command in commands:
        for text in getattr(command, what):
            cells = found.setdefault(text, [])
            name = f"{command.upstream} {command.task.upper()}"
            cells += [] if name in cells else [name]
    return [(text, ", ".join(cells)) for text, cells in found.items()]


def _hash(text: str) -> str:
    """A source of a Content-Security-Policy that lets that text through, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
