"""The plan of a suite and its estimated cost; each upstream is timed on a few seconds of audio, nothing else is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from superb_eval.corpora import embedded
from superb_eval.data import audio
from superb_eval.errors import UserError
from superb_eval.runtime import devices
from superb_eval.runtime.progress import Progress
from superb_eval.suite import jobs
from superb_eval.suite.jobs import Job, SuiteConfig

if TYPE_CHECKING:
    from superb_eval.analysis.official_plan import TaskProjection, Throughput

TIMED_SECONDS = 4.0
"""Audio that an upstream is timed on."""


@dataclass(frozen=True)
class Size:
    """The size of a task's corpus: `utterances` clips of `seconds` in total."""

    utterances: int
    seconds: float


@dataclass
class Plan:
    """The finished and the missing runs of a suite, with what the estimate is computed from."""

    config: SuiteConfig
    finished: list[Job] = field(default_factory=list)
    missing: list[Job] = field(default_factory=list)
    problems: dict[Job, str] = field(default_factory=dict)
    """Runs of `missing` that can't be executed as things are, and why."""
    sizes: dict[tuple[str, str], Size] = field(default_factory=dict)
    """By task and profile."""
    synthesised: list[str] = field(default_factory=list)
    """Tasks whose part of the embedded corpus will be synthesised first."""
    throughputs: dict[str, Throughput] = field(default_factory=dict)
    """By upstream."""
    official: dict[str, list[TaskProjection]] = field(default_factory=dict)
    """By upstream: official tasks without a local corpus, estimated from the published sizes."""
    training_seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    """Seconds of training and test, by task and profile, measured in finished runs of the results folder."""
    pooled: frozenset[tuple[str, str]] = frozenset()
    """Tasks and profiles whose features are means over time."""

    def passes(self) -> list[tuple[str, str, str]]:
        """Return the passes of upstreams over corpora: (upstream, task, profile), once for all seeds."""
        return list(dict.fromkeys((job.upstream, job.task, job.profile) for job in self.missing))

    def audio_hours(self) -> float:
        """Return the hours of audio that upstreams have to process if no features are stored yet."""
        return sum(self.sizes[t, p].seconds for _, t, p in self.passes() if (t, p) in self.sizes) / 3600

    def store_bytes(self) -> float:
        """Return the size of the features of the missing runs."""
        return sum(self._bytes(*key) for key in self.passes())

    def seconds(self, workers: int) -> float:
        """Return the estimated seconds of the missing runs; training counts where `training_seconds` has it."""
        extraction = sum(
            self.sizes[t, p].seconds / self.throughputs[u].factor
            for u, t, p in self.passes()
            if (t, p) in self.sizes and u in self.throughputs
        )
        training = sum(self.training_seconds.get((job.task, job.profile), 0.0) for job in self.missing)
        return (extraction + training) / max(1, min(workers, len(self.missing)))

    def untimed_tasks(self) -> list[str]:
        """Return the tasks whose training time is unknown, since the results folder has no finished run of them."""
        return list(dict.fromkeys(j.task for j in self.missing if (j.task, j.profile) not in self.training_seconds))

    def _bytes(self, upstream: str, task: str, profile: str) -> float:
        size, throughput = self.sizes.get((task, profile)), self.throughputs.get(upstream)
        if size is None or throughput is None:
            return 0.0
        frames = size.utterances
        if (task, profile) not in self.pooled:
            frames = round(size.seconds * audio.SAMPLE_RATE / throughput.stride)
        return 4.0 * frames * throughput.layers * throughput.width


def make_plan(config: SuiteConfig) -> Plan:
    """Return which runs are finished and which are missing: in milliseconds, without opening any.

    Raises:
        UserError: see `jobs.expand`.
    """
    plan = Plan(config)
    for job in jobs.expand(config):
        (plan.finished if jobs.finished(job) else plan.missing).append(job)
    return plan


def estimate(plan: Plan, progress: Progress) -> None:
    """Open the corpora and upstreams of missing runs, and add to the plan what its estimate needs."""
    plan.training_seconds = _training_seconds(plan.config.out)
    tasks = list(dict.fromkeys((job.task, job.profile, job.corpus, job.overrides) for job in plan.missing))
    upstreams = list(dict.fromkeys(job.upstream for job in plan.missing))
    with progress.step("planning", len(tasks) + len(upstreams)) as update:
        for done, task in enumerate(tasks, start=1):
            _measure_corpus(plan, *task)
            update(done, task[0])
        for done, address in enumerate(upstreams, start=1 + len(tasks)):
            _measure_upstream(plan, address)
            update(done, address)
            _estimate_official(plan, address)


def _measure_corpus(plan: Plan, task: str, profile: str, corpus: Path, overrides: tuple[str, ...]) -> None:
    """Add the size of a task's corpus to the plan, or why its runs can't be executed."""
    from downstreams import registry
    from superb_eval import recipe
    from superb_eval.corpora.load_corpus import read_corpus

    try:
        chosen = recipe.load(recipe.find(task, profile), overrides)
        embedded_size = embedded.SIZES.get((profile, chosen.part)) if plan.config.data is None else None
        if embedded_size and not embedded.is_made(profile, chosen.part):  # it is made when the suite starts
            plan.sizes[task, profile] = Size(*embedded_size)
            plan.synthesised.append(task)
        else:
            clips = read_corpus(chosen, corpus).clips()
            plan.sizes[task, profile] = Size(len(clips), sum(audio.seconds(clip) for clip in clips))
    except UserError as error:
        _add_problem(plan, [job for job in plan.missing if (job.task, job.profile) == (task, profile)], error)
        return
    if chosen.features.pooled and registry.get(task).pooled:
        plan.pooled |= {(task, profile)}


def _measure_upstream(plan: Plan, address: str) -> None:
    """Add an upstream's throughput to the plan, or why its runs can't be executed."""
    import torch

    from superb_eval.analysis.official_plan import Throughput, timed
    from upstreams import registry

    if devices.missing(plan.config.device):  # that of the machine that submits jobs doesn't count
        return
    try:
        upstream = registry.load(address).to(plan.config.device)
        noise = 0.1 * torch.randn(round(TIMED_SECONDS * audio.SAMPLE_RATE), generator=torch.Generator().manual_seed(0))
        wavs = [noise.to(plan.config.device)]
        with torch.inference_mode():
            states = upstream(wavs)["hidden_states"]
            factor = TIMED_SECONDS / timed(lambda: upstream(wavs), plan.config.device)
    except UserError as error:
        _add_problem(plan, [job for job in plan.missing if job.upstream == address], error)
        return
    stride = upstream.get_downsample_rates("hidden_states")
    plan.throughputs[address] = Throughput(len(states), states[0].shape[-1], stride, factor)


def _estimate_official(plan: Plan, address: str) -> None:
    """Add an upstream's estimates for official tasks without a local corpus to the plan."""
    from superb_eval.analysis import official_plan
    from superb_eval.features.store import Store

    config = plan.config
    tasks = [j.task for j in plan.missing if (j.upstream, j.profile, j.seed, j.data) == (address, "superb", 0, None)]
    if tasks and address in plan.throughputs:
        budget = Store(config.store, config.store_gb).budget
        throughput = plan.throughputs[address]
        plan.official[address] = [official_plan.project(task, throughput, budget, config.device) for task in tasks]


def _add_problem(plan: Plan, affected: Sequence[Job], error: UserError) -> None:
    for job in affected:
        plan.problems.setdefault(job, str(error))


def _training_seconds(results: Path) -> dict[tuple[str, str], float]:
    """Return the seconds of training and test by task and profile: the median of finished runs."""
    from superb_eval.results.folder import open_results

    if not results.is_dir():
        return {}
    measured: dict[tuple[str, str], list[float]] = {}
    for run in open_results(results).runs:
        seconds = run.record.seconds.get("training and test")
        if seconds:
            measured.setdefault((run.record.task, run.record.profile), []).append(seconds)
    return {key: median(values) for key, values in measured.items()}


def describe(plan: Plan, workers: int) -> list[str]:
    """Return the lines in which a plan is printed."""
    config = plan.config
    if plan.official:
        return _describe_official(plan)
    total = len(plan.finished) + len(plan.missing)
    lines = [f"{total} runs: {len(plan.finished)} finished, {len(plan.missing)} to run, {workers} at a time"]
    if not plan.missing:
        return lines
    for upstream in dict.fromkeys(job.upstream for job in plan.missing):
        tasks = list(dict.fromkeys(job.task for job in plan.missing if job.upstream == upstream))
        seeds = f" x {config.seeds} seeds" if config.seeds > 1 else ""
        lines.append(f"  {upstream}: {', '.join(tasks)}{seeds}")
    if plan.synthesised:
        lines.append(f"embedded corpus: {', '.join(plan.synthesised)} will be synthesised first, once")
    lines.append(f"audio to process: {plan.audio_hours():.2f} h, once for all seeds; less where features are stored")
    lines.append(f"feature store: up to {_size(plan.store_bytes())}")
    if missing := devices.missing(config.device):
        lines.append(f"{config.device} isn't on this machine ({missing}): upstreams were not timed")
    untimed = plan.untimed_tasks()
    training = f", plus the training of {', '.join(untimed)}, which was never timed here" if untimed else ""
    lines.append(f"time: about {duration(plan.seconds(workers))}{training}")
    lines += [f"can't run: {job}: {why}" for job, why in plan.problems.items()]
    return lines


def _describe_official(plan: Plan) -> list[str]:
    """Return the lines for official tasks without a local corpus: what they would take here."""
    from superb_eval.analysis import official_plan

    lines, where = [], "one core" if plan.config.device == "cpu" else "a GPU"
    for address, projections in plan.official.items():
        throughput = plan.throughputs[address]
        lines.append(
            f"{address} on {where}: processes {throughput.factor:.1f} s of audio a second, outputs "
            f"{throughput.layers} x {throughput.width} numbers a frame; "
            "the official protocol, by published sizes, one seed:"
        )
        lines += official_plan.table(projections)
    lines.append("store: size of all features; beyond --store-gb they are computed live. Give --data to run this.")
    return lines + [f"can't run: {job}: {why}" for job, why in plan.problems.items()]


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """Return a duration as text, such as `45 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
