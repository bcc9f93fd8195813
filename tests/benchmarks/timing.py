"""Pairs two functions so that their ratio holds on a noisy machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds(function: Callable[[], object]) -> float:
    before = time.perf_counter()
    function()
    return time.perf_counter() - before


def ratio(name: str, slow: Callable[[], object], fast: Callable[[], object], pairs: int = 7) -> str:
    """Run the two in turn; return a line with the median of slow / fast over pairs, its range, and both times."""
    slow(), fast()
    times = [(seconds(slow), seconds(fast)) for _ in range(pairs)]
    ratios = sorted(a / b for a, b in times)
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    spread = f"{ratios[0]:.3g} to {ratios[-1]:.3g}"
    medians = f"{1e3 * a:.3g} ms against {1e3 * b:.3g} ms"
    return f"{name}: {statistics.median(ratios):.3g} x ({spread} over {pairs} pairs; {medians})"
