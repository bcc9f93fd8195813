"""The plan of a suite: which runs are finished, which are missing, and what the missing ones are estimated to take."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from superb_eval.suite import jobs
from superb_eval.suite.jobs import Job, SuiteConfig
from superb_eval.suite.schedule import START_SECONDS, RunEstimate, arrange

if TYPE_CHECKING:
    from superb_eval.analysis.projection import TaskProjection, Throughput
    from superb_eval.analysis.workload import Workload


@dataclass
class Plan:
    """The finished and the missing runs of a suite, with what `superb_eval.suite.estimates` adds to it."""

    config: SuiteConfig
    finished: list[Job] = field(default_factory=list)
    missing: list[Job] = field(default_factory=list)
    problems: dict[Job, str] = field(default_factory=dict)
    """Runs of `missing` that can't be executed as things are, and why."""
    workloads: dict[tuple[str, str], Workload] = field(default_factory=dict)
    """By task and profile."""
    synthesised: list[str] = field(default_factory=list)
    """Tasks whose part of the embedded corpus will be synthesised first."""
    published: list[str] = field(default_factory=list)
    """Tasks whose official corpus isn't given: their workload is that of its published sizes."""
    throughputs: dict[tuple[str, str, str], Throughput] = field(default_factory=dict)
    """By upstream, task and profile."""
    projections: dict[tuple[str, str, str], TaskProjection] = field(default_factory=dict)
    """Of one seed, by upstream, task and profile."""
    runs: list[RunEstimate] = field(default_factory=list)
    """What each of `missing` is estimated to take, in their order."""
    memory: float = math.inf
    """Bytes that are free on the device."""

    def passes(self) -> list[tuple[str, str, str]]:
        """Return the passes of upstreams over corpora: (upstream, task, profile), once for all seeds."""
        return list(dict.fromkeys((job.upstream, job.task, job.profile) for job in self.missing))

    def audio_hours(self) -> float:
        """Return the hours of audio that upstreams have to process if no features are stored yet."""
        return sum(self.workloads[t, p].audio_seconds for _, t, p in self.passes() if (t, p) in self.workloads) / 3600

    def store_bytes(self) -> float:
        """Return the size of the features of the missing runs."""
        return sum(self.projections[key].size for key in self.passes() if key in self.projections)

    def _estimates(self) -> list[RunEstimate]:
        """Return what each missing run is estimated to take; those that can't be executed take nothing.

        The first of the runs that share a pass over a corpus extracts its features. Seeds with one `train.order_seed`
        train together with the first of them: each live batch is then computed once for all.
        """
        first_of_pass: dict[object, Job] = {}
        first_of_seeds: dict[object, Job] = {}
        estimates: dict[Job, RunEstimate] = {}
        for job in self.missing:
            key = (job.upstream, job.task, job.profile)
            projection = None if job in self.problems else self.projections.get(key)
            if projection is None:
                estimates[job] = RunEstimate(job)
                continue
            workload = self.workloads[job.task, job.profile]
            features = workload.recipe.features.model_dump_json(exclude={"layer"})
            extracting = first_of_pass.setdefault((job.upstream, workload.audio or key, features, workload.pooled), job)
            training = first_of_seeds.setdefault(key, job) if _seeds_train_together(workload) else job
            if training is not job:
                first = estimates[training]
                estimates[training] = replace(first, training=first.training + projection.training)
                estimates[job] = RunEstimate(job, memory=projection.memory, after=training, together=True)
            else:
                estimates[job] = RunEstimate(
                    job,
                    projection.extracting if extracting is job else 0.0,
                    projection.live + projection.training,
                    projection.memory,
                    None if extracting is job else extracting,
                    folds=workload.folds,
                )
        return list(estimates.values())

    def arrange(self, workers: int) -> None:
        """Put the missing runs into the order that takes less time; the first ones start the worker processes."""
        runs = arrange(self._estimates(), workers, self.memory)
        first = [run.job for run in runs if run.after is None and run.seconds][:workers]
        self.runs = [replace(run, start=START_SECONDS) if run.job in first else run for run in runs]
        self.missing = [run.job for run in self.runs]


def _seeds_train_together(workload: Workload) -> bool:
    train = workload.recipe.train
    return train is not None and train.order_seed is not None


def make_plan(config: SuiteConfig) -> Plan:
    """Return which runs are finished and which are missing: in milliseconds, without opening any.

    Raises:
        UserError: see `jobs.expand`.
    """
    plan = Plan(config)
    for job in jobs.expand(config):
        (plan.finished if jobs.finished(job) else plan.missing).append(job)
    return plan
