"""The ledger: one process has a cell, the dead make room, and no clock is believed."""

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
from superb_eval.suite import job_state, jobs, monitor, resources, run, status
from superb_eval.suite import plan as plans
from superb_eval.suite.events import Busy, Event, Failed, Finished, JobProgress, Retried, Started, SuiteOutcome
from superb_eval.suite.job_state import JobStates, Receipt
from superb_eval.suite.jobs import Job, Request
from superb_eval.suite.leases import BusyError, Lease, LeaseWatcher
from tests.suite import progress_views


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (job,) = jobs.expand(Request(("fbank",), ("ks",), tmp_path, "nano", out=tmp_path / "out"))
    return job


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_state, "BEAT", 0.05)
    monkeypatch.setattr(run, "BACKOFF", 0.01)
    monkeypatch.setattr(run, "LOOK_EVERY", 0.01)


def claim_path(job: Job) -> Path:
    return JobStates(job.out)._path(job, "claim")


def put(job: Job, **changes: object) -> Lease:
    """Leave another machine's claim on a cell."""
    claim = Lease("abc", "elsewhere", "another-place", 1, "")
    claim = replace(claim, **changes)  # type: ignore[arg-type]
    atomic_files.write_text(claim_path(job), json.dumps(asdict(claim)))
    return claim


def test_a_claim_beats_tells_how_far_it_is_and_goes(job: Job) -> None:
    book = JobStates(job.out)
    with book.claim(job) as hold:
        hold.note("training", 3, 10, "dev 50")
        first = book.claimed(job)
        until = time.monotonic() + 10
        while (claim := book.claimed(job)) is None or claim.beat < 2:
            assert time.monotonic() < until
        assert first is not None and claim.token == first.token and claim.pid == os.getpid()
        assert (claim.stage, claim.done, claim.total, claim.beside) == ("training", 3, 10, "dev 50")
        with pytest.raises(BusyError, match=f"process {os.getpid()}"):
            book.claim(job)
    assert book.claimed(job) is None
    assert [path.name for path in book.folder.iterdir()] == ["ledger.lock"], "nothing is left behind"


def test_one_of_many_gets_the_cell(job: Job) -> None:
    def attempt(_: int) -> bool:
        try:
            JobStates(job.out).claim(job)
        except BusyError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(24))) == 1


def test_a_dead_process_of_this_machine_makes_room_at_once(job: Job) -> None:
    code = f"from superb_eval.suite.job_state import *; JobStates(__import__('pathlib').Path({str(job.out)!r}))"
    code += f".claim(Job.loads({job.dumps()!r})); __import__('os')._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    left = JobStates(job.out).claimed(job)
    assert left is not None and not LeaseWatcher().lives(left)
    JobStates(job.out).claim(job, patience=1e9)


def test_a_dead_process_that_nobody_waited_for_makes_room_too() -> None:
    """As of a killed suite's workers in a container whose first process waits for nobody's children."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = processes.start_time(process.pid)
    assert processes.is_alive(process.pid) and processes.is_alive(process.pid, began)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and left as it is
    try:
        assert not processes.is_alive(process.pid) and not processes.is_alive(process.pid, began)
    finally:
        process.communicate()
    assert not processes.is_alive(process.pid)


def test_a_number_that_another_process_got_since_is_no_life(job: Job) -> None:
    claim = Lease("t", "h", processes.machine_id(), os.getpid(), processes.start_time(os.getpid()))
    assert LeaseWatcher().lives(claim)
    assert processes.start_time(os.getpid()) == "" or not LeaseWatcher().lives(replace(claim, born="1"))


def test_another_machine_is_waited_for_and_taken_over_when_it_is_silent(job: Job) -> None:
    put(job)
    before = time.monotonic()
    JobStates(job.out).claim(job, patience=0.3)
    assert time.monotonic() - before > 0.3
    claim = JobStates(job.out).claimed(job)
    assert claim is not None and claim.place == processes.machine_id()


def test_another_machine_that_beats_is_left_in_peace(job: Job) -> None:
    put(job)
    with ThreadPoolExecutor(1) as pool:
        attempt = pool.submit(JobStates(job.out).claim, job, 10.0)
        for beat in range(1, 200):
            if attempt.done():
                break
            put(job, beat=beat)
            time.sleep(0.02)
        with pytest.raises(BusyError, match="elsewhere"):
            attempt.result(timeout=10)
    assert JobStates(job.out).claimed(job) is not None


@pytest.mark.parametrize("set_to", [0.0, 4e9])
def test_a_wall_clock_that_is_set_back_or_forth_changes_nothing(
    job: Job, set_to: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    watcher = LeaseWatcher(patience=10.0, now=lambda: now[0])
    claim = put(job)
    assert watcher.lives(claim)
    monkeypatch.setattr(time, "time", lambda: set_to)
    os.utime(claim_path(job), (set_to, set_to))
    now[0] += 9
    assert watcher.lives(claim), "heard of nine seconds ago, by the watcher's own clock"
    claim = put(job, beat=1)
    assert watcher.lives(claim)
    now[0] += 9.5
    assert watcher.lives(claim)
    now[0] += 1
    assert not watcher.lives(claim)


def test_whoever_was_taken_over_notices_and_takes_nothing_away(job: Job) -> None:
    with JobStates(job.out).claim(job) as hold:
        put(job)
        hold._thread.join(timeout=10)
        assert not hold._thread.is_alive()
    claim = JobStates(job.out).claimed(job)
    assert claim is not None and claim.token == "abc"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": 1}', "\0" * 300, '{"stranger": 1}'])
def test_a_torn_claim_holds_nobody_up_and_a_torn_receipt_finishes_nothing(job: Job, text: str) -> None:
    for path in (claim_path(job), job.receipt(), JobStates(job.out)._path(job, "failed")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    book = JobStates(job.out)
    assert book.receipt(job) is None and book.failure(job) is None and jobs.finished(job) is None
    with book.claim(job):
        assert book.claimed(job)


def test_failures_keep_the_end_of_the_log_until_the_cell_is_done(job: Job) -> None:
    book = JobStates(job.out)
    book.fail(job, "it broke", mendable=False, log="\n".join(map(str, range(100))))
    failure = book.failure(job)
    assert failure is not None and failure.tail.splitlines() == [str(k) for k in range(80, 100)]
    book.finish(job, Receipt(str(job), "s", "a/b/c", "ACC 1", 2.0))
    assert book.failure(job) is None and book.receipt(job) == Receipt(str(job), "s", "a/b/c", "ACC 1", 2.0)


def test_a_follower_tells_what_the_ledger_shows(job: Job, tmp_path: Path) -> None:
    others = jobs.expand(Request(("a", "b", "c"), ("ks",), tmp_path, "nano", out=tmp_path / "out"))
    book, told = JobStates(job.out), []
    book.plan(others)
    follower = monitor.Monitor(book, others, told.append, LeaseWatcher(patience=0.0))
    follower.look()
    assert told == []
    hold = book.claim(others[0])
    hold.claim = replace(hold.claim, stage="features", done=1, total=2)
    atomic_files.write_text(hold.path, json.dumps(asdict(hold.claim)))
    book.fail(others[1], "no such corpus", mendable=True)
    book.finish(others[2], Receipt("c ks", "s", "c/ks/r", "ACC 1", 2.0))
    follower.look()
    follower.look()
    assert [type(event) for event in told] == [Started, JobProgress, Failed, Finished]
    atomic_files.write_text(hold.path, json.dumps(asdict(replace(hold.claim, place="another-place"))))
    follower.look()
    follower.look()
    assert isinstance(told[-1], Failed) and told[-1].died and "no longer heard of" in told[-1].sentence
    assert follower.open == [] and book.claimed(others[0]) is None


class Dying:
    """A scheduler whose cells die so often."""

    def __init__(self, deaths: int, busy: int = 0) -> None:
        self.deaths, self.busy, self.runs = deaths, busy, 0

    def run(self, wanted: list[Job], tell) -> None:  # type: ignore[no-untyped-def]
        for job in wanted:
            tell(Started(job))
            self.runs += 1
            if self.runs <= self.busy:
                tell(Busy(job, "process 1 on elsewhere"))
            elif self.runs <= self.busy + self.deaths:
                tell(Failed(job, "killed", mendable=False, died=True))
            else:
                tell(Finished(job, "r", "ACC 1", 1.0))


def outcome_of(scheduler: Dying, job: Job, retries: int) -> tuple[SuiteOutcome, list[Event]]:
    told: list[Event] = []
    plan = plans.Plan(Request(("fbank",), ("ks",), job.data, "nano", out=job.out), missing=[job])
    outcome = run.run(plan, scheduler, progress_views.keeping(told), NoProgress(), retries)
    return outcome, told


def test_what_died_runs_again_so_often_and_then_has_failed(job: Job) -> None:
    outcome, told = outcome_of(Dying(2), job, retries=2)
    assert len(outcome.finished) == 1 and not outcome.failed
    waits = [event.seconds for event in told if isinstance(event, Retried)]
    assert waits == [run.BACKOFF, 2 * run.BACKOFF], "longer each time"
    outcome, _ = outcome_of(Dying(3), job, retries=2)
    assert len(outcome.failed) == 1 and not outcome.finished
    failure = JobStates(job.out).failure(job)
    assert failure is not None and failure.sentence == "killed"


def test_what_somebody_else_runs_is_waited_for_and_taken_over(job: Job) -> None:
    scheduler = Dying(0, busy=1)
    outcome, _ = outcome_of(scheduler, job, retries=0)
    assert scheduler.runs == 2 and len(outcome.finished) == 1, "nobody holds it any more, and nothing came of it"


def test_the_board_shows_every_state_and_needs_a_suite(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match="no suite was ever begun"):
        status.show(tmp_path / "nowhere", follow=False)
    planned = jobs.expand(Request(("a", "b", "c", "[d]", "e"), ("ks",), tmp_path, "nano", out=tmp_path / "out"))
    book = JobStates(job.out)
    book.plan(planned)
    book.fail(planned[1], "it broke", mendable=False, log="the last line")
    book.finish(planned[2], Receipt("c ks", "s", "c/ks/r", "ACC 1", 2.0))
    put(planned[4], stage="training", done=2, total=9)
    with book.claim(planned[3]):
        lines = {line.cell: line.state for line in status.StatusView(job.out).lines()}
        status.show(job.out, follow=True)
    assert lines == {"a ks": "planned", "b ks": "failed", "c ks": "done", "[d] ks": "running", "e ks": "running"}
    shown = capsys.readouterr().out
    assert "[d] ks" in shown and "training 2/9" in shown and "the last line" in shown and "5 cells" in shown
    gone = status.StatusView(job.out, LeaseWatcher(patience=0.0))
    gone.lines()
    assert {line.cell for line in gone.lines() if line.state == "dead"} == {"e ks"}


def test_planning_again_forgets_failures_and_keeps_what_is_done(job: Job, tmp_path: Path) -> None:
    book = JobStates(job.out)
    run_folder = job.out / "fbank/ks/r"
    run_folder.mkdir(parents=True)
    (run_folder / "result.json").touch()
    jobs.forget()
    book.finish(job, Receipt(str(job), jobs.signature(job), "fbank/ks/r", "ACC 1", 2.0))
    book.fail(job, "no", mendable=True)
    book.plan([job])
    assert book.receipt(job) and not book.failure(job) and book.planned() == [job]
    (run_folder / "result.json").unlink()
    book.plan([job])
    assert book.receipt(job) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cpus=2", "Did you mean 'cpu'"),
        ("cpu=0", "expected a number"),
        ("gpu=x", "expected a number"),
        ("cpu", "expec"),
    ],
)
def test_demands_are_read_and_explained(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        resources.parse(text, "cpu")
    assert resources.parse("", "cuda") == resources.Resources(1, 1.0, 0.0)
    assert resources.parse("cpu=2, gpu=0.5,memory_gb=8", "cuda") == resources.Resources(2, 0.5, 8.0)


def test_seeds_and_head_settings_share_a_pass(tmp_path: Path) -> None:
    wanted = jobs.expand(Request(("a", "b"), ("ks", "ic"), tmp_path, "nano", ("train.lr=1",), seeds=3, out=tmp_path))
    shared = resources.passes(wanted)
    assert len(shared) == 4 and all(len(sharing) == 3 for sharing in shared.values())
