"""Follows cells that run elsewhere: what the ledger shows of them becomes events."""

from __future__ import annotations

from collections.abc import Sequence

from superb_eval.suite.events import Failed, Finished, JobProgress, Started, Tell
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import Job
from superb_eval.suite.leases import Lease, LeaseWatcher


class Monitor:
    """What is known of some cells, all of them noted as planned before. `open` holds those that aren't through."""

    def __init__(
        self, ledger: JobStates, wanted: Sequence[Job], tell: Tell, watcher: LeaseWatcher | None = None
    ) -> None:
        self.ledger, self.tell, self.watcher = ledger, tell, watcher or LeaseWatcher()
        self.open = list(wanted)
        self._claims: dict[Job, Lease] = {}

    def look(self) -> None:
        """Tell what is new: who began, how far they are, who is through or failed, and whose process died."""
        for job in list(self.open):
            claim = self.ledger.claimed(job)
            if claim is not None and self.watcher.lives(claim):
                self._progress(job, claim)
                continue
            settled = self._settled(job)
            if claim is not None and not settled:
                self.ledger.release(job, claim)
                self.died(job, f"{claim} is no longer heard of")

    def died(self, job: Job, sentence: str) -> None:
        """Tell that a cell's process, or its machine, is gone."""
        self._close(job, Failed(job, sentence, mendable=False, died=True))

    def _settled(self, job: Job) -> bool:
        """Tell of a cell that nobody runs whether it is through or failed; return whether it is one of them."""
        receipt, failure = self.ledger.receipt(job), self.ledger.failure(job)
        if receipt is not None:
            self._close(job, Finished(job, receipt.run, receipt.figures, receipt.seconds))
        elif failure is not None:
            self._close(job, Failed(job, f"{failure.sentence} ({failure.host})", failure.mendable))
        return receipt is not None or failure is not None

    def _progress(self, job: Job, claim: Lease) -> None:
        if job not in self._claims:
            self.tell(Started(job))
        if claim != self._claims.get(job) and claim.stage:
            self.tell(JobProgress(job, claim.stage, claim.done, claim.total, claim.beside))
        self._claims[job] = claim

    def _close(self, job: Job, event: Finished | Failed) -> None:
        self.open.remove(job)
        self._claims.pop(job, None)
        self.tell(event)
