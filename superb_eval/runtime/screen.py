r"""The one place that prints: nothing that comes from outside moves the cursor, and every terminal can show the text.

Labels, file names and messages may hold escape sequences, or letters that turn the line around. Terminals of Windows,
cron and `LC_ALL=C` lack arrows and accents.
"""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from superb_eval.errors import UserError
from superb_eval.runtime import system_errors

if TYPE_CHECKING:
    from rich.console import Console

READABLE = "superb_eval.readable"
"""The error handler of encodings that writes what one lacks by `_PLAIN`, else as an escape."""

_ACTING = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Unicode's categories of characters that act on a terminal, or that no encoding has: lone surrogates."""

# fmt: off
_PLAIN = {
    "→": "->", "←": "<-", "↑": "^", "↓": "v", "±": "+-", "×": "x", "·": ".", "…": "...",  # noqa: RUF001
    "–": "-", "—": "-", "−": "-", "━": "-", "─": "-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~",  # noqa: RUF001
    "Δ": "d", "°": "deg", "†": "+", "‡": "++", "‖": "||", "✓": "yes", "✗": "no", "’": "'", "“": '"', "”": '"',  # noqa: RUF001
    "¶": "*", "§": "#", "◊": "<>",
}
"""Signs of our own texts in ASCII."""
# fmt: on


def show(text: object = "", *, error: bool = False, end: str = "\n", flush: bool = False) -> None:
    """Print text to standard output, or to standard error; line breaks and tabs are all that acts on a terminal.

    Raises:
        UserError: standard output can't be written, such as on a full disk.
        BrokenPipeError: nobody reads it any more.
    """
    _write(_harmless(f"{text}{end}"), error, flush)


def show_rendered(text: str) -> None:
    """Print what a `console` rendered, whose colours are escape sequences, to standard output.

    Raises:
        UserError, BrokenPipeError: as `show`.
    """
    _write(text, error=False, flush=False)


def console(*, stderr: bool = False, **settings: Any) -> Console:
    """Return a console of rich that prints text as `show` does; `settings` are those of `rich.console.Console`."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class HarmlessConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(_encodable(_harmless(text), self.encoding), style)

    return HarmlessConsole(stderr=stderr, **settings)


def visible(text: str) -> str:
    r"""Return text on one line: control characters and marks of direction, which terminals act on, as `\u202e`."""
    return _escaped(text, kept="")


def prepare() -> None:
    """Let what others print to the standard streams, such as help texts, be printable on every terminal."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=READABLE)


def finish() -> str:
    """Write what the standard output still holds; return why it can't be, or an empty text.

    What can't be written is dropped, so that the interpreter's own attempt at its exit prints nothing.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "" if isinstance(error, BrokenPipeError) else _reason(error)
    return ""


def _write(text: str, error: bool, flush: bool) -> None:
    stream: TextIO = sys.stderr if error else sys.stdout
    try:
        stream.write(_encodable(text, stream.encoding))
        if flush or error:
            stream.flush()
    except BrokenPipeError:
        raise
    except OSError as reason:
        raise UserError(_reason(reason)) from reason


def _reason(error: OSError) -> str:
    return system_errors.sentence(error, "standard output") or f"standard output: can't be written: {error}."


def _harmless(text: str) -> str:
    return _escaped(text, kept="\n\t")


def _escaped(text: str, kept: str) -> str:
    if text.isprintable():  # nearly all text is
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _ACTING and c not in kept else c for c in text)


def _encodable(text: str, encoding: str | None) -> str:
    """Return text with `READABLE`'s substitutes for what the encoding of a stream lacks."""
    encoding = encoding or "utf8"
    return text if text.isascii() else text.encode(encoding, READABLE).decode(encoding)


def _escape(character: str) -> str:
    r"""Return a character as JSON and Python write it: `\u202e`, beyond 16 bits as a pair of surrogates."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[k]:02x}{units[k + 1]:02x}" for k in range(0, len(units), 2))


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c, _escape(c)) for c in text), error.end


codecs.register_error(READABLE, _substitute)
