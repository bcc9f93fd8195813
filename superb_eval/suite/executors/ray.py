"""Runs cells as tasks of a Ray cluster, or of one that is started on this machine for as long as the suite lasts.

Machines of a cluster share the folders of corpora, results and features, and have this package installed. Progress
and results go by the ledger; from Ray itself comes only which task's process died.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from superb_eval.errors import UserError
from superb_eval.suite.events import Busy, Tell
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import Job
from superb_eval.suite.leases import BusyError
from superb_eval.suite.monitor import Monitor
from superb_eval.suite.resources import Resources, on_shared_folders, passes

LOCAL = "local"

EVERY = 0.5
"""Seconds between two looks at the ledger."""

PASS_RETRIES = 3
"""Times that Ray itself runs a pass again whose worker died; cells are tried again by `superb_eval.suite.run`."""


class Ray:
    """A `superb_eval.suite.events.Scheduler` on the cluster at `address` (`local`: of this machine's `cores`)."""

    def __init__(self, address: str, demand: Resources, cores: int) -> None:
        self.address, self.demand, self.cores = address, demand, cores

    def run(self, jobs: Sequence[Job], tell: Tell) -> None:
        """See `Scheduler.run`.

        Raises:
            UserError: Ray isn't installed, there is no such cluster, or no machine of it has what a cell demands.
        """
        with self._cluster() as ray:
            self._check(ray)
            self._follow(ray, list(jobs), tell)

    @contextmanager
    def _cluster(self) -> Iterator[Any]:
        try:
            import ray
        except ImportError as error:
            raise UserError("--ray needs Ray: pip install 'superb-eval[ray]'.") from error
        mine = not ray.is_initialized()
        if mine:
            here = {"num_cpus": self.cores, "include_dashboard": False}
            where = here if self.address == LOCAL else {"address": self.address}
            try:
                ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:  # Ray raises bare ones too
                raise UserError(f"--ray {self.address}: no cluster answers there ({error}). `ray status`?") from error
        try:
            yield ray
        finally:
            if mine:
                ray.shutdown()

    def _check(self, ray: Any) -> None:
        """Refuse what Ray would wait for without end: more than any one machine has."""
        wanted = {"CPU": self.demand.cpu, "GPU": self.demand.gpu, "memory": self.demand.memory_gb * 1e9}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= count for name, count in wanted.items()) for node in nodes):
            asked = f"{self.demand.cpu} core(s), {self.demand.gpu:g} GPU(s), {self.demand.memory_gb:g} GB"
            raise UserError(f"no machine of the cluster has {asked}. Lower --demand, or add a machine.")

    def _follow(self, ray: Any, wanted: list[Job], tell: Tell) -> None:
        tasks = self._submitted(ray, wanted)
        follower = Monitor(JobStates(wanted[0].out), wanted, tell)
        while tasks:
            ready, _ = ray.wait(list(tasks), timeout=EVERY)
            for task in ready:
                _settle(ray, task, tasks.pop(task), follower, tell)
            follower.look()

    def _submitted(self, ray: Any, wanted: list[Job]) -> dict[Any, Job]:
        """Hand everything to Ray: a pass where cells share one, and its cells to run after it."""
        options: dict[str, Any] = {"num_cpus": self.demand.cpu, "num_gpus": self.demand.gpu}
        if self.demand.memory_gb:
            options["memory"] = int(self.demand.memory_gb * 1e9)
        first = ray.remote(max_retries=PASS_RETRIES, **options)(_pass)
        cell = ray.remote(max_retries=0, **options)(_cell)
        tasks = {}
        for sharing in passes(wanted).values():
            text = on_shared_folders(sharing[0]).dumps()
            after = first.remote(text, os.getcwd()) if len(sharing) > 1 else None
            for job in sharing:
                tasks[cell.remote(on_shared_folders(job).dumps(), os.getcwd(), after)] = job
        return tasks


def _settle(ray: Any, task: Any, job: Job, follower: Monitor, tell: Tell) -> None:
    """Take in that a task is over; what came of its cell stands in the ledger, unless its process died."""
    try:
        busy, broken = ray.get(task)
    except ray.exceptions.RayError as error:
        busy, broken = "", f"its Ray worker is gone: {str(error).strip().splitlines()[0][:200]}"
    follower.look()
    if job not in follower.open:
        return
    if busy:
        follower.open.remove(job)
        tell(Busy(job, busy))
    else:
        follower.died(job, broken or "its Ray worker left neither a result nor a failure")


def _pass(text: str, folder: str) -> None:
    """In a worker: fill the store with what some cells share."""
    from superb_eval.runtime.progress import NoProgress
    from superb_eval.suite.execute import extract

    os.chdir(folder)
    try:
        extract(Job.loads(text), NoProgress())
    except BusyError:  # whoever runs the cell fills the store
        return


def _cell(text: str, folder: str, after: None) -> tuple[str, str]:
    """In a worker: run a cell; return who else runs it, if somebody does, and what broke, as the ledger tells too."""
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
