"""What the documents say: their headings, links, blocks of code, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

WALKED = ("README.md", "docs/*.md", "upstreams/README.md", "downstreams/README.md", "recipes/README.md")
"""Documents whose every command line is run, or says that it was not."""

OTHERS = ("CONTRIBUTING.md", "CHANGELOG.md", "recipes/*/*.md", "superb_eval/results/*.md", "upstreams/weights/*/*.md")
"""Documents whose commands report what was done, and have to be good command lines."""

NOT_RUN = re.compile(r"#.*\bnot run here\b")
"""How a line says that nobody ran it here."""

FENCE = re.compile(r"^(`{3,})([\w+-]*)[^\n]*\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`(superb-eval [^`]+)`(?!`)")
INDENTED = re.compile(r"^ {4}(superb-eval .+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code: the language that its fence names, and its text."""

    place: str
    language: str
    text: str


@dataclass(frozen=True)
class Line:
    """A command line in a document; `run` is False where it says that it was not run here, `whole` in sentences."""

    place: str
    words: tuple[str, ...]
    run: bool = True
    whole: bool = True


def paths(*patterns: str) -> list[Path]:
    """Return the documents that patterns name."""
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def text_of(path: Path) -> str:
    """Return a document."""
    return path.read_text(encoding="utf8")


def prose_of(path: Path) -> str:
    """Return a document without its blocks of code."""
    return FENCE.sub("", text_of(path))


@cache
def blocks(path: Path) -> tuple[Block, ...]:
    """Return the blocks of code of a document."""
    text = text_of(path)
    return tuple(Block(_place(path, text, found.start()), found[2], found[3]) for found in FENCE.finditer(text))


def lines(path: Path) -> Iterator[Line]:
    """Return the command lines in a document's blocks."""
    for block in blocks(path):
        if block.language == "sh":
            yield from lines_of(block)


def lines_of(block: Block) -> Iterator[Line]:
    """Return the command lines of a block."""
    for text in block.text.replace("\\\n", " ").splitlines():
        words = tuple(shlex.split(text, comments=True))
        if words:
            yield Line(block.place, words, not NOT_RUN.search(text))


def mentions(path: Path) -> Iterator[Line]:
    """Return the command lines in a document's sentences, and in blocks that are only indented."""
    prose = prose_of(path)
    for pattern in (SPAN, INDENTED):
        for found in pattern.finditer(prose):
            command = found[1].replace("\n", " ").replace("\\|", "|")
            if "..." not in command:
                yield Line(path.name, tuple(shlex.split(command, comments=True)), run=False, whole=False)


def headings(path: Path) -> set[str]:
    """Return the anchors of a document's headings."""
    found = re.findall(r"^#+ +(.+?) *$", prose_of(path), re.MULTILINE)
    return {re.sub(r" ", "-", re.sub(r"[^\w\- ]", "", heading.lower())) for heading in found}


def links(path: Path) -> list[str]:
    """Return where a document's links and pictures lead."""
    return links_in(text_of(path))


def links_in(text: str) -> list[str]:
    """Return where the links and pictures of a text lead; those in code don't count."""
    prose = re.sub(r"(`+)[^\n]*?\1", "", FENCE.sub("", text))
    return re.findall(r"\]\(([^()\s]+)\)", prose)


def section(path: Path, name: str) -> str:
    """Return the part of a document that the site shows under a name; all of it where that is empty."""
    text = text_of(path)
    if not name:
        return text
    _, _, rest = text.partition(f"<!-- --8<-- [start:{name}] -->")
    part, end, _ = rest.partition(f"<!-- --8<-- [end:{name}] -->")
    assert end, f"{path}: has no section {name}"
    return part


def _place(path: Path, text: str, at: int) -> str:
    return f"{path.relative_to(ROOT)}, line {text.count(chr(10), 0, at) + 1}"
