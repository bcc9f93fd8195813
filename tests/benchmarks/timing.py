"""Times two functions in turn, so that their ratio holds on a noisy machine.

On a CPU the seconds are this process's CPU time on one core: other processes don't count, except through shared caches.
On a GPU they are wall-clock seconds until the device is done.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


def seconds(function: Callable[[], object], device: str = "cpu") -> float:
    if device == "cpu":
        before = time.process_time()
        function()
        return time.process_time() - before
    torch.cuda.synchronize()
    before = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - before


@dataclass(frozen=True)
class Pair:
    """Seconds of two functions that were run in turn."""

    slow: tuple[float, ...]
    fast: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        return sorted(a / b for a, b in zip(self.slow, self.fast, strict=True))

    def __str__(self) -> str:
        low, middle, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        a, b = (statistics.median(side) for side in (self.slow, self.fast))
        return f"{middle:.3g} x ({low:.3g} to {high:.3g}; {1e3 * a:.3g} ms against {1e3 * b:.3g} ms)"


def pair(
    slow: Callable[[], object], fast: Callable[[], object], rounds: int = 5, device: str = "cpu", often: int = 1
) -> Pair:
    """Run the two in turn, each `often` times a turn, after one turn to warm up."""

    def repeated(function: Callable[[], object]) -> None:
        for _ in range(often):
            function()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        slow(), fast()
        times = [
            (seconds(lambda: repeated(slow), device) / often, seconds(lambda: repeated(fast), device) / often)
            for _ in range(rounds)
        ]
    finally:
        torch.set_num_threads(threads)
    return Pair(*(tuple(side) for side in zip(*times, strict=True)))
