"""Renders a report as HTML: the template, and its filters that every text from outside passes through."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from superb_eval.report.charts.figure import CONFIG
from superb_eval.report.markup import clean
from superb_eval.results.record import RunRecord

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
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False, "allow_nan": False}
    environment.filters |= {
        "cut": _cut,
        "days": _days,
        "by_text": _by_text,
    }
    style, script = ((TEMPLATES / name).read_text(encoding="utf8") for name in ("report.css", "report.js"))
    scripts = (chart_library(), script)
    return environment.get_template("report.html.j2").render(
        style=Markup(style),
        scripts=[Markup(text) for text in scripts],
        style_hash=_hash(style),
        script_hashes=" ".join(map(_hash, scripts)),
        chart_config=CONFIG,
        **content,
    )


@cache
def chart_library() -> str:
    """Return the source of Vega, Vega-Lite and vega-embed as one module, which defines `window.vegaEmbed`."""
    import vl_convert

    # Nothing in it may end the element that it stands in.
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def _cut(text: object, most: int = 200) -> str:
    return clean(text, most)


def _days(records: Sequence[RunRecord]) -> str:
    """The first and the last day on which a run began."""
    days = sorted({record.started[:10] for record in records})
    return " to ".join(dict.fromkeys((days[0], days[-1])))


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
