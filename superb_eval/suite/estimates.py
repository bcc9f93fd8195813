"""What a plan's missing runs are estimated to take: corpora are read, upstreams and heads timed on a little noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from superb_eval.corpora import embedded
from superb_eval.errors import UserError
from superb_eval.features.budget import budget_bytes
from superb_eval.runtime import devices, memory
from superb_eval.runtime.progress import Progress
from superb_eval.suite.jobs import Job
from superb_eval.suite.plan import Plan

if TYPE_CHECKING:
    from superb_eval.analysis.projection import HeadCost, Throughput, TimedBatch
    from superb_eval.analysis.workload import Workload


def estimate(plan: Plan, progress: Progress, workers: int) -> None:
    """Open the corpora and upstreams of missing runs, estimate what each takes, and arrange them for `workers`."""
    from superb_eval.runtime import out_of_memory

    tasks = list(dict.fromkeys((job.task, job.profile, job.corpus, job.overrides) for job in plan.missing))
    upstreams = list(dict.fromkeys(job.upstream for job in plan.missing))
    with progress.step("planning", len(tasks) + len(plan.passes())) as update:
        for done, task in enumerate(tasks, start=1):
            _add_workload(plan, *task)
            update(done, task[0])
        if devices.missing(plan.config.device):  # that of the machine that submits jobs doesn't count
            return
        projector = _Projector(plan)
        for address in upstreams:
            for task_name in projector.project(address):
                done += 1
                update(done, f"{address} {task_name}")
    out_of_memory.empty_cache()
    plan.memory = memory.free_bytes(plan.config.device)
    plan.arrange(workers)


def _add_workload(plan: Plan, task: str, profile: str, corpus: Path, overrides: tuple[str, ...]) -> None:
    """Add a task's workload to the plan, or why its runs can't be executed."""
    from superb_eval import recipe
    from superb_eval.analysis import workload
    from superb_eval.corpora.load_corpus import read_corpus

    at_hand, limit = plan.config.data is not None, plan.config.limit
    try:
        chosen = recipe.load(recipe.find(task, profile), overrides)
        if chosen.train is not None:
            chosen.train.require_device(plan.config.device)
        size = embedded.SIZES.get((profile, chosen.part))
        if not at_hand and profile == "superb":
            plan.workloads[task, profile] = workload.of_published(chosen).limited(limit)
            plan.published.append(task)
        elif not at_hand and size and not embedded.is_made(profile, chosen.part):  # it is made when the suite starts
            plan.workloads[task, profile] = workload.of_size(chosen, *size).limited(limit)
            plan.synthesised.append(task)
        else:
            plan.workloads[task, profile] = workload.of_corpus(chosen, read_corpus(chosen, corpus, limit=limit))
    except UserError as error:
        _add_problem(plan, [job for job in plan.missing if (job.task, job.profile) == (task, profile)], error)


class _Projector:
    """Adds throughputs and projections to a plan; what is alike is timed once."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.device = plan, plan.config.device
        self.store_bytes = budget_bytes(plan.config.store_gb)
        self.trained = _training_seconds(plan.config.out)
        self._heads: dict[tuple[object, ...], HeadCost] = {}

    def project(self, address: str) -> Iterator[str]:
        """Add what an upstream takes on each of its missing tasks, or why it can't be run; yield each task then."""
        from superb_eval.analysis import projection
        from upstreams import registry

        tasks = [(task, profile) for name, task, profile in self.plan.passes() if name == address]
        measured: dict[TimedBatch, Throughput] = {}
        try:
            upstream = registry.load(address).to(self.device)
            while tasks:
                workload = self.plan.workloads.get(tasks[0])
                if workload is not None:
                    batch = projection.timed_batch(upstream, workload, self.device)
                    part = replace(batch, share=1.0)
                    if part not in measured:
                        measured[part] = projection.measure(upstream, part, self.device)
                    throughput = measured[part]
                    self._add(address, workload, replace(throughput, batch=throughput.batch / batch.share))
                yield tasks.pop(0)[0]
        except UserError as error:
            _add_problem(self.plan, [job for job in self.plan.missing if job.upstream == address], error)
            yield from (task for task, _ in tasks)

    def _add(self, address: str, workload: Workload, throughput: Throughput) -> None:
        from superb_eval.analysis import projection

        recipe = workload.recipe
        key = (address, recipe.task, recipe.profile)
        self.plan.throughputs[key] = throughput
        # The same head on features of the same shape takes as long, whatever upstream they come from.
        alike = (recipe.task, recipe.profile, throughput.layers, throughput.width, throughput.stride)
        if alike not in self._heads:
            self._heads[alike] = projection.head_cost(workload, throughput, self.device)
        found = projection.project(workload, throughput, self._heads[alike], self.store_bytes, self.device)
        trained = self.trained.get((address, recipe.digest()))
        self.plan.projections[key] = found if trained is None else replace(found, training=trained, live=0.0)


def _add_problem(plan: Plan, affected: Sequence[Job], error: UserError) -> None:
    for job in affected:
        plan.problems.setdefault(job, str(error))


def _training_seconds(results: Path) -> dict[tuple[str, str], float]:
    """Return the seconds of training and test by upstream and recipe: the median of finished runs."""
    from superb_eval.results.folder import open_results

    if not results.is_dir():
        return {}
    measured: dict[tuple[str, str], list[float]] = {}
    for run in open_results(results).runs:
        seconds = run.record.seconds.get("training and test")
        if seconds:
            measured.setdefault((run.record.upstream.address, run.record.recipe_digest), []).append(seconds)
    return {key: median(values) for key, values in measured.items()}
