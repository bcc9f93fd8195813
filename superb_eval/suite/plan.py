"""What a suite is going to do, and about how long that takes; nothing is run here but a second of each upstream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from superb_eval.data import audio
from superb_eval.errors import UserError
from superb_eval.runtime.progress import Progress
from superb_eval.suite import jobs
from superb_eval.suite.jobs import Job, Request

if TYPE_CHECKING:
    from superb_eval.analysis.official_plan import TaskProjection, Throughput

TRIAL_SECONDS = 4.0
"""Audio that an upstream is timed on."""


@dataclass(frozen=True)
class Size:
    """What a task's corpus holds: `utterances` clips of `seconds` in all."""

    utterances: int
    seconds: float


@dataclass
class Plan:
    """Cells that are finished, and cells that are not, with what is known of them."""

    request: Request
    kept: list[Job] = field(default_factory=list)
    missing: list[Job] = field(default_factory=list)
    problems: dict[Job, str] = field(default_factory=dict)
    """Cells of `missing` that can't run as things are, and why."""
    sizes: dict[tuple[str, str], Size] = field(default_factory=dict)
    """By task and profile."""
    speeds: dict[str, Throughput] = field(default_factory=dict)
    official: dict[str, list[TaskProjection]] = field(default_factory=dict)
    """By upstream: the official tasks, where no corpus is at hand, so that their published sizes are taken."""
    training: dict[tuple[str, str], float] = field(default_factory=dict)
    """Seconds of training and test, by task and profile, as finished runs in the results folder took."""
    pooled: frozenset[tuple[str, str]] = frozenset()
    """Tasks and profiles whose features are means over time."""

    def passes(self) -> list[tuple[str, str, str]]:
        """Return the passes of upstreams over corpora: (upstream, task, profile), once for all seeds."""
        return list(dict.fromkeys((job.upstream, job.task, job.profile) for job in self.missing))

    def audio_hours(self) -> float:
        """Return the hours of audio that upstreams have to hear, where nothing is stored yet."""
        return sum(self.sizes[t, p].seconds for _, t, p in self.passes() if (t, p) in self.sizes) / 3600

    def store_bytes(self) -> float:
        """Return the size of the features of the missing cells."""
        return sum(self._bytes(*needed) for needed in self.passes())

    def seconds(self, workers: int) -> float:
        """Return about how long the missing cells take; training counts where `training` knows it."""
        listening = sum(
            self.sizes[t, p].seconds / self.speeds[u].factor
            for u, t, p in self.passes()
            if (t, p) in self.sizes and u in self.speeds
        )
        training = sum(self.training.get((job.task, job.profile), 0.0) for job in self.missing)
        return (listening + training) / max(1, min(workers, len(self.missing)))

    def unknown(self) -> list[str]:
        """Return the tasks whose training has never been timed here."""
        return list(dict.fromkeys(j.task for j in self.missing if (j.task, j.profile) not in self.training))

    def _bytes(self, upstream: str, task: str, profile: str) -> float:
        size, speed = self.sizes.get((task, profile)), self.speeds.get(upstream)
        if size is None or speed is None:
            return 0.0
        frames = size.utterances
        if (task, profile) not in self.pooled:
            frames = round(size.seconds * audio.SAMPLE_RATE / speed.stride)
        return 4.0 * frames * speed.layers * speed.width


def sort(request: Request) -> Plan:
    """Return which cells are finished and which are not: in milliseconds, without opening anything.

    Raises:
        UserError: see `jobs.expand`.
    """
    plan = Plan(request)
    for job in jobs.expand(request):
        (plan.kept if jobs.finished(job) else plan.missing).append(job)
    return plan


def examine(plan: Plan, reporter: Progress) -> None:
    """Open the corpora and upstreams of missing cells, and fill in what a plan tells of them."""
    plan.training = _timings(plan.request.out)
    asked = list(dict.fromkeys((job.task, job.profile, job.corpus, job.overrides) for job in plan.missing))
    upstreams = list(dict.fromkeys(job.upstream for job in plan.missing))
    with reporter.stage("planning", len(asked) + len(upstreams)) as update:
        for done, wanted in enumerate(asked, start=1):
            _measure(plan, *wanted)
            update(done, wanted[0])
        for done, address in enumerate(upstreams, start=1 + len(asked)):
            _time(plan, address)
            update(done, address)
            _project(plan, address)


def _measure(plan: Plan, task: str, profile: str, corpus: Path, overrides: tuple[str, ...]) -> None:
    """Note the size of a task's corpus, or why its cells can't run."""
    from downstreams import registry
    from superb_eval import recipe
    from superb_eval.runs import config

    if plan.request.data is None and not (corpus / "corpus.json").is_file():
        return  # the embedded corpus is made when the suite begins
    try:
        chosen = recipe.load(recipe.find(task, profile), overrides)
        clips = config.read_corpus(chosen, corpus).clips()
        plan.sizes[task, profile] = Size(len(clips), sum(audio.seconds(clip) for clip in clips))
    except UserError as error:
        _blame(plan, [job for job in plan.missing if (job.task, job.profile) == (task, profile)], error)
        return
    if chosen.features.pooled and registry.get(task).pooled:
        plan.pooled |= {(task, profile)}


def _time(plan: Plan, address: str) -> None:
    """Note what an upstream gives and how fast, or why its cells can't run."""
    import torch

    from superb_eval.analysis.official_plan import Throughput, timed
    from upstreams import registry

    try:
        upstream = registry.load(address).to(plan.request.device)
        noise = 0.1 * torch.randn(round(TRIAL_SECONDS * audio.SAMPLE_RATE), generator=torch.Generator().manual_seed(0))
        wavs = [noise.to(plan.request.device)]
        with torch.inference_mode():
            states = upstream(wavs)["hidden_states"]
            factor = TRIAL_SECONDS / timed(lambda: upstream(wavs), plan.request.device)
    except UserError as error:
        _blame(plan, [job for job in plan.missing if job.upstream == address], error)
        return
    stride = upstream.get_downsample_rates("hidden_states")
    plan.speeds[address] = Throughput(len(states), states[0].shape[-1], stride, factor)


def _project(plan: Plan, address: str) -> None:
    """Project the official tasks that are asked of an upstream without a corpus."""
    from superb_eval.analysis import official_plan
    from superb_eval.features.store import Store

    request = plan.request
    asked = [j.task for j in plan.missing if (j.upstream, j.profile, j.seed, j.data) == (address, "superb", 0, None)]
    if asked and address in plan.speeds:
        room = Store(request.store, request.store_gb).budget
        heard = plan.speeds[address]
        plan.official[address] = [official_plan.project(task, heard, room, request.device) for task in asked]


def _blame(plan: Plan, cells: Sequence[Job], error: UserError) -> None:
    for job in cells:
        plan.problems.setdefault(job, str(error))


def _timings(results: Path) -> dict[tuple[str, str], float]:
    """Seconds of training and test by task and profile: the median of finished runs."""
    from superb_eval.results.folder import open_results

    if not results.is_dir():
        return {}
    found: dict[tuple[str, str], list[float]] = {}
    for run in open_results(results).runs:
        seconds = run.record.seconds.get("training and test")
        if seconds:
            found.setdefault((run.record.task, run.record.profile), []).append(seconds)
    return {key: median(values) for key, values in found.items()}


def describe(plan: Plan, workers: int) -> list[str]:
    """Return a plan in words, a line each."""
    request = plan.request
    if plan.official:
        return _described(plan)
    total = len(plan.kept) + len(plan.missing)
    lines = [f"{total} cells: {len(plan.kept)} finished, {len(plan.missing)} to run, {workers} at a time"]
    if not plan.missing:
        return lines
    for upstream in dict.fromkeys(job.upstream for job in plan.missing):
        tasks = list(dict.fromkeys(job.task for job in plan.missing if job.upstream == upstream))
        seeds = f" x {request.seeds} seeds" if request.seeds > 1 else ""
        lines.append(f"  {upstream}: {', '.join(tasks)}{seeds}")
    lines.append(f"audio to hear: {plan.audio_hours():.2f} h, once for all seeds; less where features are stored")
    lines.append(f"feature store: up to {_size(plan.store_bytes())}")
    unknown = plan.unknown()
    beside = f", and the training of {', '.join(unknown)}, which was never timed here" if unknown else ""
    lines.append(f"time: about {duration(plan.seconds(workers))}{beside}")
    lines += [f"can't run: {job}: {why}" for job, why in plan.problems.items()]
    return lines


def _described(plan: Plan) -> list[str]:
    """The headline: what the official tasks would take here."""
    from superb_eval.analysis import official_plan

    lines, where = [], "one core" if plan.request.device == "cpu" else "a GPU"
    for address, projections in plan.official.items():
        heard = plan.speeds[address]
        lines.append(
            f"{address} on {where}: hears {heard.factor:.1f} s of audio a second, gives "
            f"{heard.layers} x {heard.width} numbers a frame; the official protocol, by published sizes, one seed:"
        )
        lines += official_plan.table(projections)
    lines.append("store: what all features take; beyond --store-gb they are computed live. Give --data to run this.")
    return lines + [f"can't run: {job}: {why}" for job, why in plan.problems.items()]


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
