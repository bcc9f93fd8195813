"""SVG drawing for the charts: elements as escaped text, scales, ticks and axes.

Lengths are in the units of a chart's own view box, at its natural size CSS pixels. Colours are classes of the
style sheet, so that a chart follows dark mode and print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

SERIES = 8
"""Colours in the style sheet, classes `s1` to `s8`; later series reuse them."""


@dataclass(frozen=True)
class Figure:
    """A chart, and the figures it shows as a table.

    `key` is unique in a page and makes ids. `wide`: too wide to shrink on a phone: it is scrolled instead.
    """

    key: str
    title: str
    note: str
    svg: Markup
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    wide: bool = False


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
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else clean(value, LONGEST)


LONGEST = 10**6
"""Longest attribute of a drawing, such as a path, in characters."""


def clean(text: object, most: int = 300) -> str:
    """Return a text from outside as one line of printable characters, cut to at most that many characters.

    Control characters and those that change the direction of writing become spaces.
    """
    printable = "".join(c if c.isprintable() else " " for c in str(text))
    return printable if len(printable) <= most else f"{printable[: most - 1]}…"


def chart(key: str, title: str, description: str, size: tuple[float, float], *children: object) -> Markup:
    """Return an `<svg>` of that width and height with a title and a description for screen readers."""
    width, height = size
    return tag(
        "svg",
        tag("title", title, id=f"{key}-title"),
        tag("desc", description, id=f"{key}-desc"),
        *children,
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        viewBox=f"0 0 {number(float(width))} {number(float(height))}",
        width=float(width),
        height=float(height),
    )


def text(x: float, y: float, content: object, anchor: str = "start", class_: str | None = None) -> Markup:
    """Return a line of text whose baseline is at `y`."""
    return tag("text", content, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str, hint: str | None = None) -> Markup:
    """Return a line through points; `hint` is shown where the mouse rests."""
    steps = " ".join(f"{'L' if k else 'M'}{number(float(x))} {number(float(y))}" for k, (x, y) in enumerate(points))
    return tag("path", *([tag("title", hint)] if hint else []), d=steps, class_=class_)


def mark(x: float, y: float, index: int, hint: str | None = None, hollow: bool = False) -> Markup:
    """Return the mark of a series: four shapes and eight colours in turn."""
    steps = "".join(
        f"{'L' if k else 'M'}{number(x + a)} {number(y + b)}" for k, (a, b) in enumerate(_SHAPES[index % 4])
    )
    inner = [tag("title", hint)] if hint else []
    return tag("path", *inner, d=f"{steps}Z", class_=f"mark {series_class(index)}{' hollow' if hollow else ''}")


def _regular(corners: int, radius: float, rotation: float) -> list[tuple[float, float]]:
    angles = [2 * math.pi * (k / corners) + rotation for k in range(corners)]
    return [(radius * math.sin(angle), -radius * math.cos(angle)) for angle in angles]


_SHAPES = (_regular(16, 4.4, 0), _regular(4, 5.4, math.pi / 4), _regular(3, 6, 0), _regular(4, 5.8, 0))
"""Disc, square, triangle, diamond."""


def shortened(name: str, most: int = 26) -> str:
    """Return a name that fits next to a chart; its table gives the full name."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def series_class(index: int) -> str:
    """Return the CSS class with the colour of a series."""
    return f"s{index % SERIES + 1}"


Scale = Callable[[float], float]
"""From a figure to a coordinate."""


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Return the scale that maps `low` to `start` and `high` to `end`; to their middle where `low` equals `high`."""
    if high == low:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Return a scale in decades; `low` and `high` are above 0."""
    inner = linear(math.log10(low), math.log10(high), start, end)
    return lambda value: inner(math.log10(value))


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return some `about` round figures from `low` to `high`."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    coarse = [power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999]
    # A step nearly as wide as the range may have no multiple in it: then a finer one has.
    return _multiples(low, high, coarse[0]) or _multiples(low, high, coarse[0] / 2.5)


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return the powers of ten from `low` to `high`."""
    return [10.0**k for k in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]


def short(value: float) -> str:
    """Return a tick's figure: `1k`, `0.05`, `1e-4`."""
    if value == 0:
        return "0"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")


@dataclass(frozen=True)
class Box:
    """The field of a chart in which data lie: between `left` and `right`, `top` and `bottom`."""

    left: float
    top: float
    right: float
    bottom: float

    def across(self, scale: Scale, values: Sequence[float], label: str) -> Markup:
        """Return the horizontal axis: a rule, its ticks' figures and what it measures."""
        parts = [line(self.left, self.bottom, self.right, self.bottom, "axis")]
        for value in values:
            parts.append(line(scale(value), self.bottom, scale(value), self.bottom + 4, "axis"))
            parts.append(text(scale(value), self.bottom + 16, short(value), "middle", "tick"))
        parts.append(text((self.left + self.right) / 2, self.bottom + 32, label, "middle", "label"))
        return Markup("").join(parts)

    def up(self, scale: Scale, values: Sequence[float], label: str) -> Markup:
        """Return the vertical axis: faint rules across the field, figures at the left, what it measures on top."""
        parts = []
        for value in values:
            parts.append(line(self.left, scale(value), self.right, scale(value), "grid"))
            parts.append(text(self.left - 6, scale(value) + 4, short(value), "end", "tick"))
        parts.append(text(4, self.top - 10, label, "start", "label"))
        return Markup("").join(parts)
