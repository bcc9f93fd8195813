"""The states of runs: one process holds a lease, dead ones are replaced, and no wall clock is trusted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files, processes
from superb_eval.runtime.progress import NoProgress
from superb_eval.suite import inputs, job_state, jobs, monitor, run, status
from superb_eval.suite import plan as plans
from superb_eval.suite.events import Busy, Event, Failed, Finished, JobProgress, Retried, Started, SuiteOutcome
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import Job, SuiteConfig
from superb_eval.suite.leases import BusyError, Lease, LeaseWatcher
from superb_eval.suite.state_files import Failure, Receipt
from tests.suite import progress_views


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (job,) = jobs.expand(SuiteConfig(("fbank",), ("ks",), tmp_path, "nano", out=tmp_path / "out"))
    return job


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_state, "HEARTBEAT", 0.05)
    monkeypatch.setattr(run, "BACKOFF", 0.01)
    monkeypatch.setattr(run, "POLL_SECONDS", 0.01)


def lease_path(job: Job) -> Path:
    return JobStates(job.out)._path(job, "claim")


def write_lease(job: Job, **changes: object) -> Lease:
    """Write another machine's lease on a run."""
    lease = Lease("abc", "elsewhere", "another-machine", 1, "")
    lease = replace(lease, **changes)  # type: ignore[arg-type]
    atomic_files.write_text(lease_path(job), json.dumps(asdict(lease)))
    return lease


def test_a_lease_has_heartbeats_and_progress_and_is_removed(job: Job) -> None:
    states = JobStates(job.out)
    with states.acquire(job) as held:
        held.report("training", 3, 10, "dev 50")
        first = states.lease(job)
        until = time.monotonic() + 10
        while (lease := states.lease(job)) is None or lease.heartbeat < 2:
            assert time.monotonic() < until
        assert first is not None and lease.token == first.token and lease.pid == os.getpid()
        assert (lease.step, lease.done, lease.total, lease.postfix) == ("training", 3, 10, "dev 50")
        with pytest.raises(BusyError, match=f"process {os.getpid()}"):
            states.acquire(job)
    assert states.lease(job) is None
    assert [path.name for path in states.folder.iterdir()] == ["states.lock"], "no state is left"


def test_one_of_many_gets_the_lease(job: Job) -> None:
    def attempt(_: int) -> bool:
        try:
            JobStates(job.out).acquire(job)
        except BusyError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(24))) == 1


def test_a_lease_of_a_dead_process_of_this_machine_is_replaced_at_once(job: Job) -> None:
    code = f"from superb_eval.suite.job_state import *; JobStates(__import__('pathlib').Path({str(job.out)!r}))"
    code += f".acquire(Job.loads({job.dumps()!r})); __import__('os')._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    left = JobStates(job.out).lease(job)
    assert left is not None and not LeaseWatcher().is_alive(left)
    JobStates(job.out).acquire(job, timeout=1e9)


def test_a_dead_process_whose_parent_does_not_wait_counts_as_dead() -> None:
    """As a killed suite's workers in a container without an init process."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    lease = Lease("t", "h", processes.machine_id(), process.pid, processes.start_time(process.pid))
    assert processes.is_alive(process.pid) and LeaseWatcher().is_alive(lease)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and not waited for
    try:
        assert not processes.is_alive(process.pid) and not LeaseWatcher().is_alive(lease)
    finally:
        process.communicate()
    assert not processes.is_alive(process.pid)


def test_a_reused_pid_does_not_count_as_alive(job: Job) -> None:
    lease = Lease("t", "h", processes.machine_id(), os.getpid(), processes.start_time(os.getpid()))
    assert LeaseWatcher().is_alive(lease)
    assert processes.start_time(os.getpid()) == "" or not LeaseWatcher().is_alive(replace(lease, started="1"))


def test_a_lease_of_another_machine_without_heartbeat_is_replaced(job: Job) -> None:
    write_lease(job)
    before = time.monotonic()
    JobStates(job.out).acquire(job, timeout=0.3)
    assert time.monotonic() - before > 0.3
    lease = JobStates(job.out).lease(job)
    assert lease is not None and lease.machine == processes.machine_id()


def test_a_lease_of_another_machine_with_heartbeat_is_respected(job: Job) -> None:
    write_lease(job)
    with ThreadPoolExecutor(1) as pool:
        attempt = pool.submit(JobStates(job.out).acquire, job, 10.0)
        for heartbeat in range(1, 200):
            if attempt.done():
                break
            write_lease(job, heartbeat=heartbeat)
            time.sleep(0.02)
        with pytest.raises(BusyError, match="elsewhere"):
            attempt.result(timeout=10)
    assert JobStates(job.out).lease(job) is not None


@pytest.mark.parametrize("set_to", [0.0, 4e9])
def test_a_changed_wall_clock_changes_nothing(job: Job, set_to: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    watcher = LeaseWatcher(timeout=10.0, now=lambda: now[0])
    lease = write_lease(job)
    assert watcher.is_alive(lease)
    monkeypatch.setattr(time, "time", lambda: set_to)
    os.utime(lease_path(job), (set_to, set_to))
    now[0] += 9
    assert watcher.is_alive(lease), "its heartbeat was nine seconds ago, by the watcher's own clock"
    lease = write_lease(job, heartbeat=1)
    assert watcher.is_alive(lease)
    now[0] += 9.5
    assert watcher.is_alive(lease)
    now[0] += 1
    assert not watcher.is_alive(lease)


def test_a_replaced_lease_is_noticed_and_not_removed(job: Job) -> None:
    with JobStates(job.out).acquire(job) as held:
        write_lease(job)
        held._thread.join(timeout=10)
        assert not held._thread.is_alive()
    lease = JobStates(job.out).lease(job)
    assert lease is not None and lease.token == "abc"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": 1}', "\0" * 300, '{"unexpected": 1}'])
def test_damaged_states_are_ignored(job: Job, text: str) -> None:
    for path in (lease_path(job), job.receipt_path(), JobStates(job.out)._path(job, "failed")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    states = JobStates(job.out)
    assert states.receipt(job) is None and states.failure(job) is None and jobs.finished(job) is None
    with states.acquire(job, timeout=0.1):
        assert states.lease(job)


def test_an_unreadable_lease_expires_as_one_without_heartbeat(job: Job) -> None:
    """It may be another version's, of a process that runs."""
    lease_path(job).parent.mkdir(parents=True)
    lease_path(job).write_text('{"version": 99}')
    lease = JobStates(job.out).lease(job)
    assert lease is not None and str(lease) == f"the writer of the unreadable {lease_path(job)}"
    now = [0.0]
    watcher = LeaseWatcher(now=lambda: now[0])
    assert watcher.is_alive(lease) and not watcher.is_certain(lease)
    now[0] = 59.0
    assert watcher.is_alive(lease)
    now[0] = 60.0
    assert not watcher.is_alive(lease)


@pytest.mark.parametrize("pid", [-1, 0, 1, 2**31, 10**30])
def test_a_lease_of_no_process_of_ours_is_replaced(job: Job, pid: int) -> None:
    """To kill(2), -1 is every process; 1 always runs, and started at another time."""
    write_lease(job, machine=processes.machine_id(), pid=pid)
    with JobStates(job.out).acquire(job, timeout=0.1):
        assert JobStates(job.out).lease(job)


def test_states_of_earlier_versions_are_read(job: Job) -> None:
    claim = {"token": "t", "host": "h", "place": "p", "pid": 1, "born": "2", "beat": 3, "seconds": 4.0}
    claim |= {"stage": "training", "done": 5, "total": 6, "beside": "dev 50"}
    failure = {"sentence": "no such corpus", "mendable": True, "host": "h", "tail": ""}
    receipt = {"cell": "fbank ks", "signature": "s", "run": "fbank/ks/r", "figures": "ACC 1", "seconds": 2.0}
    states = JobStates(job.out)
    states.folder.mkdir(parents=True)
    lease_path(job).write_text(json.dumps(claim))
    states._path(job, "failed").write_text(json.dumps(failure))
    job.receipt_path().write_text(json.dumps(receipt))
    assert states.lease(job) == Lease("t", "h", "p", 1, "2", 3, 4.0, "training", 5, 6, "dev 50")
    assert states.failure(job) == Failure("no such corpus", True, "h")
    assert states.receipt(job) == Receipt("s", "fbank/ks/r", "ACC 1", 2.0)


def test_failures_store_the_end_of_the_log_until_the_run_is_finished(job: Job) -> None:
    states = JobStates(job.out)
    states.fail(job, "it broke", fixable=False, log="\n".join(map(str, range(100))))
    failure = states.failure(job)
    assert failure is not None and failure.tail.splitlines() == [str(k) for k in range(80, 100)]
    states.finish(job, Receipt("s", "a/b/c", "ACC 1", 2.0))
    assert states.failure(job) is None and states.receipt(job) == Receipt("s", "a/b/c", "ACC 1", 2.0)


def test_a_monitor_reports_what_the_states_show(job: Job, tmp_path: Path) -> None:
    others = jobs.expand(SuiteConfig(("a", "b", "c"), ("ks",), tmp_path, "nano", out=tmp_path / "out"))
    states, events = JobStates(job.out), []
    states.plan(others)
    monitor_ = monitor.Monitor(states, others, events.append, LeaseWatcher(timeout=0.0))
    monitor_.poll()
    assert events == []
    held = states.acquire(others[0])
    held.lease = replace(held.lease, step="features", done=1, total=2)
    atomic_files.write_text(held.path, json.dumps(asdict(held.lease)))
    states.fail(others[1], "no such corpus", fixable=True)
    states.finish(others[2], Receipt("s", "c/ks/r", "ACC 1", 2.0))
    monitor_.poll()
    monitor_.poll()
    assert [type(event) for event in events] == [Started, JobProgress, Failed, Finished]
    atomic_files.write_text(held.path, json.dumps(asdict(replace(held.lease, machine="another-machine"))))
    monitor_.poll()
    monitor_.poll()
    assert isinstance(events[-1], Failed) and events[-1].died and "no heartbeat any more" in events[-1].message
    assert monitor_.pending == [] and states.lease(others[0]) is None


class Dying:
    """A scheduler whose first runs are busy, and whose next die."""

    def __init__(self, deaths: int, busy: int = 0) -> None:
        self.deaths, self.busy, self.runs = deaths, busy, 0

    def run(self, planned: list[Job], on_event) -> None:  # type: ignore[no-untyped-def]
        for job in planned:
            on_event(Started(job))
            self.runs += 1
            if self.runs <= self.busy:
                on_event(Busy(job, "process 1 on elsewhere"))
            elif self.runs <= self.busy + self.deaths:
                on_event(Failed(job, "killed", fixable=False, died=True))
            else:
                on_event(Finished(job, "r", "ACC 1", 1.0))


def outcome_of(scheduler: Dying, job: Job, retries: int) -> tuple[SuiteOutcome, list[Event]]:
    events: list[Event] = []
    plan = plans.Plan(SuiteConfig(("fbank",), ("ks",), job.data, "nano", out=job.out), missing=[job])
    outcome = run.run(plan, scheduler, progress_views.recording(events), NoProgress(), retries)
    return outcome, events


def test_runs_that_died_are_retried_and_then_fail(job: Job) -> None:
    outcome, events = outcome_of(Dying(2), job, retries=2)
    assert len(outcome.finished) == 1 and not outcome.failed
    waits = [event.seconds for event in events if isinstance(event, Retried)]
    assert waits == [run.BACKOFF, 2 * run.BACKOFF], "longer each time"
    outcome, _ = outcome_of(Dying(3), job, retries=2)
    assert len(outcome.failed) == 1 and not outcome.finished
    failure = JobStates(job.out).failure(job)
    assert failure is not None and failure.message == "killed"


def test_runs_of_another_suite_are_waited_for_and_then_executed(job: Job) -> None:
    scheduler = Dying(0, busy=1)
    outcome, _ = outcome_of(scheduler, job, retries=0)
    assert scheduler.runs == 2 and len(outcome.finished) == 1, "its lease is gone, and it has no result"


def test_the_status_shows_every_state(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match="no suite was ever started"):
        status.show(tmp_path / "nowhere", follow=False)
    planned = jobs.expand(SuiteConfig(("a", "b", "c", "[d]", "e"), ("ks",), tmp_path, "nano", out=tmp_path / "out"))
    states = JobStates(job.out)
    states.plan(planned)
    states.fail(planned[1], "it broke", fixable=False, log="the last line")
    states.finish(planned[2], Receipt("s", "c/ks/r", "ACC 1", 2.0))
    write_lease(planned[4], step="training", done=2, total=9)
    with states.acquire(planned[3]):
        by_run = {run.run: run.state for run in status.StatusView(job.out).read()}
        status.show(job.out, follow=True)
    assert by_run == {"a ks": "planned", "b ks": "failed", "c ks": "done", "[d] ks": "running", "e ks": "running"}
    shown = capsys.readouterr().out
    assert "[d] ks" in shown and "training 2/9" in shown and "the last line" in shown and "5 runs" in shown
    gone = status.StatusView(job.out, LeaseWatcher(timeout=0.0))
    gone.read()
    assert {run.run for run in gone.read() if run.state == "dead"} == {"e ks"}


def test_planning_again_removes_failures_and_outdated_receipts(job: Job, tmp_path: Path) -> None:
    states = JobStates(job.out)
    run_folder = job.out / "fbank/ks/r"
    run_folder.mkdir(parents=True)
    (run_folder / "result.json").touch()
    inputs.clear_cache()
    states.finish(job, Receipt(jobs.signature(job), "fbank/ks/r", "ACC 1", 2.0))
    states.fail(job, "no", fixable=True)
    states.plan([job])
    assert states.receipt(job) and not states.failure(job) and states.planned() == [job]
    (run_folder / "result.json").unlink()
    states.plan([job])
    assert states.receipt(job) is None


def test_a_run_out_of_memory_elsewhere_is_retried_as_one_that_died(job: Job) -> None:
    """On Ray and SLURM, whose machines other processes share."""
    states, events = JobStates(job.out), list[Event]()

    class OutOfMemoryOnce:
        def run(self, planned: list[Job], on_event) -> None:  # type: ignore[no-untyped-def]
            if events:
                on_event(Finished(job, "r", "ACC 1", 1.0))
                return
            states.fail(job, "memory of cuda ran out", fixable=True, memory_ran_out=True)
            monitor.Monitor(states, planned, on_event).poll()

    plan = plans.Plan(SuiteConfig(("fbank",), ("ks",), job.data, "nano", out=job.out), missing=[job])
    outcome = run.run(plan, OutOfMemoryOnce(), progress_views.recording(events), NoProgress(), retries=1)
    assert len(outcome.finished) == 1 and isinstance(events[0], Retried)
    assert events[0].message.startswith("memory of cuda ran out (") and states.failure(job) is None
