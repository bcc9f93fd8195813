r"""Escapes text from outside for each format of a table.

Names of upstreams and corpora come from the command line, from other people's files and records: they may hold markup,
formulas, escape sequences, or letters that run from right to left.
"""

from __future__ import annotations

import re

from superb_eval.runtime.screen import visible

LONGEST = 60
"""Characters of a name in a table that people read; CSV and JSON hold all."""

_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after a line break it would begin an option
    "]": "{]}",
    "Δ": r"$\Delta$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "±": r"$\pm$",
    "°": r"$^{\circ}$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "…": r"\ldots{}",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "‖": r"$\parallel$",
    "◊": r"$\diamond$",
    "§": r"\S{}",
    "¶": r"\P{}",
}


def short(text: str) -> str:
    """Return visible text of at most `LONGEST` characters: the middle is left out."""
    text = visible(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 20]}…{text[-19:]}"


def rich(text: str) -> str:
    """Return text that rich prints as it stands."""
    from rich.markup import escape

    return escape(visible(text))


def markdown(text: str) -> str:
    """Return text that is no HTML, link, code or column in Markdown."""
    text = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|!])", r"\\\1", text)


def latex(text: str) -> str:
    """Return text that LaTeX typesets letter by letter; what its standard fonts lack is written as U+05D0."""
    return "".join(_tex(c) for c in visible(text))


def _tex(character: str) -> str:
    if character in _TEX:
        return _TEX[character]
    return character if character.isascii() else f"U+{ord(character):04X}"


def spreadsheet(text: str) -> str:
    """Return text that no spreadsheet evaluates as a formula."""
    text = visible(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "'")) else text
