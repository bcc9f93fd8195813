"""The lines in which a plan is printed: what is missing, what each task takes, how long all of it, how much memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from superb_eval.runtime import devices
from superb_eval.runtime.pace import duration
from superb_eval.suite.plan import Plan
from superb_eval.suite.schedule import RunEstimate, simulate

if TYPE_CHECKING:
    from superb_eval.analysis.projection import TaskProjection

UNITS = {"h": 3600.0, "min": 60.0, "s": 1.0}


def describe(plan: Plan, workers: int) -> list[str]:
    """Return the lines of a plan, with its runs in the order in which they start."""
    config = plan.config
    total = len(plan.finished) + len(plan.missing)
    lines = [f"{total} runs: {len(plan.finished)} finished, {len(plan.missing)} to run, {workers} at a time"]
    if not plan.missing:
        return lines
    for upstream in sorted({job.upstream for job in plan.missing}):
        tasks = list(dict.fromkeys(job.task for job in plan.missing if job.upstream == upstream))
        seeds = f" x {len(config.seeds)} seeds" if len(config.seeds) > 1 else ""
        lines.append(f"  {upstream}: {', '.join(tasks)}{seeds}")
    if plan.synthesised:
        lines.append(f"embedded corpus: {', '.join(plan.synthesised)} will be synthesised first, once")
    lines.append(f"audio to process: {plan.audio_hours():.2f} h, once for all seeds; less where features are stored")
    if missing := devices.missing(config.device):
        lines.append(f"{config.device} isn't on this machine ({missing}): nothing was timed")
    else:
        lines.append(f"feature store: up to {_size(plan.store_bytes())}; beyond --store-gb features are computed live")
        for upstream in sorted({upstream for upstream, *_ in plan.projections}):
            lines += _describe_upstream(plan, upstream)
        lines += _describe_schedule(plan, plan.runs, workers)
    if plan.published:
        lines.append(f"by the published sizes of their corpora: {', '.join(plan.published)}. Give --data to run this.")
    return lines + [f"can't run: {job}: {why}" for job, why in plan.problems.items()]


def _describe_upstream(plan: Plan, upstream: str) -> Iterator[str]:
    """Yield the table of an upstream's tasks, and which of them takes most."""
    found = [projection for (name, *_), projection in plan.projections.items() if name == upstream]
    factors = [throughput.factor for (name, *_), throughput in plan.throughputs.items() if name == upstream]
    shape = next(throughput for (name, *_), throughput in plan.throughputs.items() if name == upstream)
    where = "one core" if plan.config.device == devices.CPU else plan.config.device
    speeds = f"{min(factors):.3g}" + (f" to {max(factors):.3g}" if max(factors) > min(factors) else "")
    yield (
        f"{upstream} on {where}: processes {speeds} s of audio a second, outputs {shape.layers} x {shape.width} "
        "numbers a frame; one seed:"
    )
    yield from table(found)
    most = max(found, key=lambda projection: projection.seconds)
    whole = sum(projection.seconds for projection in found)
    if len(found) > 1 and whole:
        yield (
            f"  {most.task} takes most: {100 * most.seconds / whole:.0f} % "
            f"(extraction {duration(most.extracting + most.live)}, training and test {duration(most.training)})"
        )


def _describe_schedule(plan: Plan, runs: Sequence[RunEstimate], workers: int) -> Iterator[str]:
    """Yield the lines of time and memory, all runs together."""
    takes = simulate(runs, workers, plan.memory)
    least, whole = simulate(runs, len(runs)), simulate(runs, 1)
    several = f"; one at a time {duration(whole)}, all at once {duration(least)}" if len(runs) > 1 else ""
    beside = ", if none slows another" if workers > 1 and plan.config.device != devices.CPU else ""
    yield f"time: about {duration(takes)}{beside}{several}"
    largest = sorted((run.memory for run in runs), reverse=True)[:workers]
    if math.isfinite(plan.memory) and any(largest):
        fits = "" if sum(largest) <= plan.memory else ": fewer run at a time beside the largest"
        count = f"the {len(largest)} largest runs together" if len(largest) > 1 else "the largest run"
        yield f"memory: {count} about {_size(sum(largest))} of {_size(plan.memory)} free on {plan.config.device}{fits}"


def table(projections: Sequence[TaskProjection]) -> list[str]:
    """Return a line for each task and one for all, with seconds in a unit that suits all of them."""
    whole = sum(projection.seconds for projection in projections)
    unit = "h" if whole >= 5400 else "min" if whole >= 90 else "s"
    headings = "".join(f"{name} {unit}".rjust(12) for name in ("extract", "live", "train", "all"))
    lines = [f"  {'task':<6}{'audio h':>9}{'store GB':>10}{headings}{'memory GB':>11}"]
    for p in projections:
        lines.append(_line(p.task, (p.audio, p.size), (p.extracting, p.live, p.training, p.seconds), unit, p.memory))
    if len(projections) > 1:
        audio, size, *seconds = (
            sum(getattr(p, name) for p in projections)
            for name in ("audio", "size", "extracting", "live", "training", "seconds")
        )
        lines.append(_line("all", (audio, size), seconds, unit, max(p.memory for p in projections)))
    return lines


def _line(name: str, sizes: tuple[float, float], seconds: Sequence[float], unit: str, memory: float) -> str:
    times = "".join(f"{value / UNITS[unit]:>12.2f}" for value in seconds)
    return f"  {name:<6}{sizes[0] / 3600:>9.2f}{sizes[1] / 1e9:>10.2f}{times}{memory / 1e9:>11.1f}"


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
