"""Executes runs as tasks of a Ray cluster, or of one that is started on this machine while the suite lasts.

The machines of a cluster share the folders of corpora, results and features, and have this package installed. Progress
and results are read from the states of the runs; Ray itself reports only which task's process died.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from superb_eval.errors import UserError
from superb_eval.suite.events import Busy, EventHandler
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import Job
from superb_eval.suite.leases import BusyError
from superb_eval.suite.monitor import Monitor
from superb_eval.suite.resources import Resources, shared_passes, with_absolute_folders

LOCAL = "local"

POLL_SECONDS = 0.5
"""Seconds between two looks at the states of the runs."""

PASS_RETRIES = 3
"""Times that Ray itself repeats a pass whose worker died; runs are retried by `superb_eval.suite.run`."""


class Ray:
    """A `superb_eval.suite.events.Scheduler` on the cluster at `address` (`local`: on `cores` of this machine)."""

    def __init__(self, address: str, resources: Resources, cores: int) -> None:
        self.address, self.resources, self.cores = address, resources, cores

    def run(self, jobs: Sequence[Job], on_event: EventHandler) -> None:
        """See `Scheduler.run`.

        Raises:
            UserError: Ray isn't installed, there is no such cluster, or none of its machines has a run's resources.
        """
        with self._cluster() as ray:
            self._check_resources(ray)
            self._execute(ray, list(jobs), on_event)

    @contextmanager
    def _cluster(self) -> Iterator[Any]:
        try:
            import ray
        except ImportError as error:
            raise UserError("--ray needs Ray: pip install 'superb-eval[ray]'.") from error
        started_here = not ray.is_initialized()
        if started_here:
            local = {"num_cpus": self.cores, "include_dashboard": False}
            where = local if self.address == LOCAL else {"address": self.address}
            try:
                ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:  # Ray raises bare ones too
                raise UserError(f"--ray {self.address}: no cluster answers there ({error}). `ray status`?") from error
        try:
            yield ray
        finally:
            if started_here:
                ray.shutdown()

    def _check_resources(self, ray: Any) -> None:
        """Refuse more than any single machine has, for which Ray would wait forever."""
        needed = {"CPU": self.resources.cpu, "GPU": self.resources.gpu, "memory": self.resources.memory_gb * 1e9}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= count for name, count in needed.items()) for node in nodes):
            r = self.resources
            text = f"{r.cpu} core(s), {r.gpu:g} GPU(s), {r.memory_gb:g} GB"
            raise UserError(f"no machine of the cluster has {text}. Lower --demand, or add a machine.")

    def _execute(self, ray: Any, jobs: list[Job], on_event: EventHandler) -> None:
        tasks = self._submit(ray, jobs)
        monitor = Monitor(JobStates(jobs[0].out), jobs, on_event)
        while tasks:
            ready, _ = ray.wait(list(tasks), timeout=POLL_SECONDS)
            for task in ready:
                _report_end(ray, task, tasks.pop(task), monitor)
            monitor.poll()

    def _submit(self, ray: Any, jobs: list[Job]) -> dict[Any, Job]:
        """Submit everything to Ray: a pass where runs share one, and its runs after it."""
        options: dict[str, Any] = {"num_cpus": self.resources.cpu, "num_gpus": self.resources.gpu}
        if self.resources.memory_gb:
            options["memory"] = int(self.resources.memory_gb * 1e9)
        extract_task = ray.remote(max_retries=PASS_RETRIES, **options)(_extract)
        run_task = ray.remote(max_retries=0, **options)(_run)
        tasks = {}
        for sharing in shared_passes(jobs).values():
            text = with_absolute_folders(sharing[0]).dumps()
            after = extract_task.remote(text, os.getcwd()) if len(sharing) > 1 else None
            for job in sharing:
                tasks[run_task.remote(with_absolute_folders(job).dumps(), os.getcwd(), after)] = job
        return tasks


def _report_end(ray: Any, task: Any, job: Job, monitor: Monitor) -> None:
    """Report the end of a task; its run's result is in the run's state, unless its process died."""
    try:
        holder, error_text = ray.get(task)
    except ray.exceptions.RayError as error:
        holder, error_text = "", f"its Ray worker is gone: {str(error).strip().splitlines()[0][:200]}"
    monitor.poll()
    if job not in monitor.pending:
        return
    if holder:
        monitor.pending.remove(job)
        monitor.on_event(Busy(job, holder))
    else:
        monitor.report_death(job, error_text or "its Ray worker left neither a result nor a failure")


def _extract(text: str, folder: str) -> None:
    """In a worker: store the features that several runs share."""
    from superb_eval.runtime.progress import NoProgress
    from superb_eval.suite.execute import extract

    os.chdir(folder)
    try:
        extract(Job.loads(text), NoProgress())
    except BusyError:  # the process that executes the run stores them
        return


def _run(text: str, folder: str, after: None) -> tuple[str, str]:
    """In a worker: execute a run; return which other process executes it, if one does, and the error, if one occurs."""
    from superb_eval.runtime.progress import NoProgress
    from superb_eval.suite.execute import execute

    del after
    os.chdir(folder)
    try:
        execute(Job.loads(text), NoProgress())
    except BusyError as error:
        return str(error), ""
    except Exception as error:
        return "", f"{type(error).__name__}: {error}"
    return "", ""
