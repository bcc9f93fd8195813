"""Rewrites what stands between `<!-- recorded: NAME -->` and `<!-- end -->` in the documents, from templates."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files
from tests.docs import documents
from tests.recorded import grids, wording

TEMPLATES = Path(__file__).parent / "templates"
ENDING = ".md.j2"

MARKED = re.compile(r"^<!-- recorded: ([\w-]+) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"^<!-- (recorded: .*|end) -->$", re.MULTILINE)


def paths() -> list[Path]:
    """Return the documents whose figures are written or checked."""
    return documents.paths(*documents.WALKED, *documents.OTHERS)


def names_in(text: str) -> list[str]:
    """Return the names of a document's marks."""
    return MARKED.findall(text)


def without_marked(text: str) -> str:
    """Return a document without what is written by templates."""
    return MARKED.sub("", text)


def rendered(text: str, place: str) -> str:
    """Return a document with its marked parts written anew.

    Raises:
        UserError: a mark has no template or no end, or a template asks for what no set holds.
    """
    done = MARKED.sub(lambda found: f"<!-- recorded: {found[1]} -->\n\n{part(found[1], place)}\n\n<!-- end -->", text)
    stray = MARK.search(without_marked(text))
    if stray:
        raise UserError(f"{place}: {stray[0]} stands alone. Expected `<!-- recorded: NAME -->` and `<!-- end -->`.")
    return done


def part(name: str, place: str) -> str:
    """Return what a template makes.

    Raises:
        UserError: there is no such template.
    """
    if not (TEMPLATES / f"{name}{ENDING}").is_file():
        raise UserError(f"{place}: {TEMPLATES / name}{ENDING} is missing, which `<!-- recorded: {name} -->` names.")
    return _environment().get_template(f"{name}{ENDING}").render().strip()


def write() -> list[Path]:
    """Rewrite the documents; return those that changed."""
    changed = []
    for path in paths():
        text = documents.text_of(path)
        done = rendered(text, str(path.relative_to(documents.ROOT)))
        if done != text:
            atomic_files.write_text(path, done)
            changed.append(path)
    return changed


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"recorded": wording.figures, "log": grids.log}
    environment.globals |= {"log_table": grids.log_table, "whole_table": grids.whole_table, "speed": grids.speed}
    return environment
