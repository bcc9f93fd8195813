"""What an upstream costs: weights, multiply-accumulates, real-time factor, memory.

Upstreams alternate on the same utterance, so that a busy machine slows them alike, and speeds are compared within a
round. Multiply-accumulates are those of convolutions and matrix products, attention's included (torch's counter);
Fourier transforms and elementwise work aren't counted, and no figure is given where layers are recurrent.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from superb_eval.runtime import devices
from superb_eval.runtime.memory import peak_bytes
from upstreams import registry
from upstreams.base import SAMPLE_RATE, Upstream
from upstreams.contract.check import signal
from upstreams.distilhubert import DistilHubert, DistilHubertWithHeads, Heads
from upstreams.hubert import Hubert
from upstreams.loading.positional_conv import library_convolutions

FAIRSEQ_HEAD = 768 * 256 + 256 + 504 * 256
"""Weights of HuBERT Base's pre-training head: a projection, and 500 clusters + 4 specials as fairseq counts them."""


@dataclass(frozen=True)
class Cost:
    """The cost of one upstream. `times` are seconds per pass, one for each round, the same rounds for all upstreams."""

    name: str
    weights: int
    """Those that a forward pass uses."""
    with_heads: int | None
    """With the heads of its training, as some publications count; None: not known."""
    macs: float | None
    """Multiply-accumulates per second of audio; None: not countable."""
    seconds: float
    """Length of the utterance."""
    times: tuple[float, ...]
    memory: int | None
    """Bytes: weights and the peak of a pass; None: not measurable on this system."""

    @property
    def real_time_factor(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of computing time over audio time."""
        return _quartiles([t / self.seconds for t in self.times])

    def figures(self) -> dict[str, float]:
        """Return what a results folder stores (`superb_eval.results.table.costs`)."""
        found = {"real_time_factor": self.real_time_factor[1]}
        return found if self.macs is None else {**found, "gmacs_per_second": self.macs / 1e9}

    def speed_up(self, other: Cost) -> tuple[float, float, float]:
        """How much faster this is than `other`: quartiles and median of the ratios within each round."""
        return _quartiles([theirs / mine for mine, theirs in zip(self.times, other.times, strict=True)])


def measure(names: Sequence[str], device: str = "cpu", seconds: float = 10.0, rounds: int = 15) -> list[Cost]:
    """Measure upstreams by their addresses, on one utterance of noise at a time.

    Raises:
        UserError: an upstream can't be opened, or there is no such device.
    """
    devices.require(device)
    wav = signal(int(seconds * SAMPLE_RATE)).to(device)
    upstreams = [registry.load(name).to(device) for name in names]
    with torch.inference_mode():
        memory = [_memory(upstream, wav) for upstream in upstreams]
        macs = [_macs(upstream, wav, seconds) for upstream in upstreams]
        times = _times(upstreams, wav, rounds)
    return [
        Cost(
            name=name,
            weights=upstream.count_parameters(),
            with_heads=_with_heads(upstream),
            macs=macs[k],
            seconds=seconds,
            times=tuple(times[k]),
            memory=memory[k],
        )
        for k, (name, upstream) in enumerate(zip(names, upstreams, strict=True))
    ]


def render(costs: Sequence[Cost]) -> str:
    """Return a table; ratios are to the first."""
    first = costs[0]
    rows = [("upstream", "weights", "with heads", "GMAC/s", "real-time factor", "peak MB", "size", "speed")]
    for cost in costs:
        rows.append(
            (
                cost.name,
                f"{cost.weights / 1e6:.2f} M",
                _scaled(cost.with_heads, 1e6, " M"),
                _scaled(cost.macs, 1e9),
                "{1:.4f} ({0:.4f} to {2:.4f})".format(*cost.real_time_factor),
                _scaled(cost.memory, 1e6, digits=0),
                f"{cost.weights / first.weights:.3f}" if first.weights else "-",
                "{1:.2f} ({0:.2f} to {2:.2f})".format(*cost.speed_up(first)),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])  # the name left, figures right
        for row in rows
    ]
    where = f"{first.seconds:g} s of noise, batch of 1, {len(first.times)} rounds, {torch.get_num_threads()} thread(s)"
    return "\n".join([*lines, f"{where}; median (quartiles); size and speed: against {first.name}."])


def _scaled(value: float | None, unit: float, after: str = "", digits: int = 2) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}{after}"


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _with_heads(upstream: Upstream) -> int | None:
    """Weights with training heads: the paper's three for students, fairseq's for HuBERT Base."""
    count, width = upstream.count_parameters(), upstream.card.width
    if isinstance(upstream, DistilHubertWithHeads):
        return count
    if isinstance(upstream, DistilHubert):
        return count + sum(p.numel() for p in Heads(width, 3, width).parameters())
    base = isinstance(upstream, Hubert) and (width, upstream.card.layers) == (768, 13)
    return count + FAIRSEQ_HEAD if base else None


def _macs(upstream: Upstream, wav: Tensor, seconds: float) -> float | None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    if any(isinstance(module, nn.RNNBase) for module in upstream.modules()):
        return None
    # Fused attention escapes the counter on some devices, products that add in place do everywhere.
    in_place = {torch.ops.aten.addmm_: lambda out, a, b, **_: 2 * a[0] * a[1] * b[1]}  # of shapes
    counting = FlopCounterMode(display=False, custom_mapping=in_place)
    with library_convolutions(upstream), sdpa_kernel(SDPBackend.MATH), counting as counter:
        upstream([wav])
    return float(counter.get_total_flops()) / 2 / seconds


def _times(upstreams: Sequence[Upstream], wav: Tensor, rounds: int) -> list[list[float]]:
    """Return the seconds of each pass, by upstream and round; the order changes from round to round."""
    times: list[list[float]] = [[] for _ in upstreams]
    for number in range(-1, rounds):  # the first only warms up
        for place in range(len(upstreams)):
            k = (place + number) % len(upstreams)
            _synchronize(wav)
            started = time.perf_counter()
            upstreams[k]([wav])
            _synchronize(wav)
            if number >= 0:
                times[k].append(time.perf_counter() - started)
    return times


def _synchronize(wav: Tensor) -> None:
    if wav.is_cuda:
        torch.cuda.synchronize()


def _memory(upstream: Upstream, wav: Tensor) -> int | None:
    """Return the bytes of weights and buffers, and of what a pass adds at its peak."""
    own = sum(t.numel() * t.element_size() for t in (*upstream.parameters(), *upstream.buffers()))
    added = peak_bytes(lambda: upstream([wav]), str(wav.device))
    return None if added is None else own + int(added)
