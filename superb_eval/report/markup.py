"""Drawings small enough for a cell, as SVG, and text from outside made fit for a page.

Lengths are CSS pixels. Colours are classes of the style sheet, so that a drawing follows dark mode and print.
"""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup, escape


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element; children and attribute values are escaped unless they are `Markup`.

    `class_` stands for `class`, and other underscores for hyphens; an attribute that is None is left out.
    """
    rendered = [
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), number(value))
        for key, value in attributes.items()
        if value is not None
    ]
    inner = Markup("").join(child if isinstance(child, Markup) else escape(clean(child)) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), Markup("").join(rendered), inner)


def number(value: object) -> str:
    """Return a coordinate with two decimals at most; other values as text."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else clean(value)


def clean(text: object, most: int = 300) -> str:
    """Return a text from outside as one line of printable characters, cut to at most that many characters.

    Control characters and those that change the direction of writing become spaces.
    """
    printable = "".join(c if c.isprintable() else " " for c in str(text))
    return printable if len(printable) <= most else f"{printable[: most - 1]}…"


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def linear(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return the scale that maps `low` to `start` and `high` to `end`; to their middle where `low` equals `high`."""
    if high == low:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)
