"""Monitors runs that are executed elsewhere: changes of their states become events."""

from __future__ import annotations

from collections.abc import Sequence

from superb_eval.suite.events import EventHandler, Failed, Finished, JobProgress, Started
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import Job
from superb_eval.suite.leases import Lease, LeaseWatcher


class Monitor:
    """Monitors jobs that were planned before; `pending` holds those that are neither finished nor failed."""

    def __init__(
        self, states: JobStates, jobs: Sequence[Job], on_event: EventHandler, watcher: LeaseWatcher | None = None
    ) -> None:
        self.states, self.on_event, self.watcher = states, on_event, watcher or LeaseWatcher()
        self.pending = list(jobs)
        self._leases: dict[Job, Lease] = {}

    def poll(self) -> None:
        """Report what is new: runs that started, their progress, those that finished, failed or died."""
        for job in list(self.pending):
            lease = self.states.lease(job)
            if lease is not None and self.watcher.is_alive(lease):
                self._report_progress(job, lease)
                continue
            over = self._report_end(job)
            if lease is not None and not over:
                self.states.release(job, lease)
                self.report_death(job, f"{lease} sends no heartbeat any more")

    def report_death(self, job: Job, message: str) -> None:
        """Report that a run's process, or its machine, is gone."""
        self._close(job, Failed(job, message, fixable=False, died=True))

    def _report_end(self, job: Job) -> bool:
        """Report a run without a live process as finished or failed, if it is one of them; return whether it is."""
        receipt, failure = self.states.receipt(job), self.states.failure(job)
        if receipt is not None:
            self._close(job, Finished(job, receipt.run, receipt.figures, receipt.seconds))
        elif failure is not None:
            message = f"{failure.message} ({failure.host})"
            self._close(job, Failed(job, message, failure.fixable, died=failure.memory_ran_out))
        return receipt is not None or failure is not None

    def _report_progress(self, job: Job, lease: Lease) -> None:
        if job not in self._leases:
            self.on_event(Started(job))
        if lease != self._leases.get(job) and lease.step:
            self.on_event(JobProgress(job, lease.step, lease.done, lease.total, lease.postfix))
        self._leases[job] = lease

    def _close(self, job: Job, event: Finished | Failed) -> None:
        self.pending.remove(job)
        self._leases.pop(job, None)
        self.on_event(event)
