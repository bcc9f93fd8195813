"""Runs side by side on this machine: within the device's memory; one that runs out of it waits, and is resumed."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from superb_eval.errors import UserError
from superb_eval.runtime import out_of_memory
from superb_eval.runtime.progress import NoProgress, Update
from superb_eval.suite import execute, inputs, jobs, run, status
from superb_eval.suite import plan as plans
from superb_eval.suite.events import Event, Failed, Finished, OutOfMemory, Started, SuiteOutcome
from superb_eval.suite.executors import local, worker
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import Job, SuiteConfig
from superb_eval.suite.progress_view import ProgressView
from superb_eval.suite.schedule import RunEstimate
from superb_eval.suite.time_left import TimeLeft
from tests.suite import progress_views


@dataclass
class Device:
    """Stands in for a GPU of `memory` bytes; `needs` is what each run really allocates."""

    memory: float
    needs: dict[Job, float]
    overlap: threading.Barrier | None = None
    used: dict[Job, float] = field(default_factory=dict)
    peak: float = 0.0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def allocated(self, job: Job) -> Iterator[bool]:
        """Yield whether the run's memory fits; it is free again afterwards."""
        with self.lock:
            fits = sum(self.used.values()) + self.needs[job] <= self.memory
            if fits:
                self.used[job] = self.needs[job]
            self.peak = max(self.peak, sum(self.used.values()))
            self.at_once = max(self.at_once, len(self.used))
        try:
            yield fits
        finally:
            with self.lock:
                self.used.pop(job, None)


def use_device(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers allocate on a device in place of executing runs."""

    class OnDevice:
        def __init__(self, log: Path, threads: int, shared: bool) -> None:
            self.shared = shared

        def is_alive(self) -> bool:
            return True

        def execute(self, job: Job) -> Iterator[Event]:
            yield Started(job)
            with device.allocated(job) as fits:
                if fits and device.overlap and self.shared:
                    device.overlap.wait(timeout=20)  # until others run beside it
                if fits:
                    yield Finished(job, "r", "ACC 1", 1.0)
                    return
            yield OutOfMemory(job, "memory ran out") if self.shared else Failed(job, "memory ran out", fixable=True)

        def stop(self) -> None:
            pass

    monkeypatch.setattr(local, "_Worker", OnDevice)


def executed(scheduler: local.Local, planned: list[Job]) -> list[Event]:
    events: list[Event] = []
    scheduler.run(planned, events.append)
    return events


@pytest.fixture
def planned(tmp_path: Path) -> list[Job]:
    return jobs.expand(SuiteConfig(tuple("abcdef"), ("ks",), tmp_path, "nano", out=tmp_path / "out"))


def test_three_at_a_time_keep_to_the_memory(planned: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(10.0, dict.fromkeys(planned, 4.0), threading.Barrier(2))
    use_device(device, monkeypatch)
    known = {job: RunEstimate(job, memory=4.0) for job in planned}
    events = executed(local.Local(3, known, memory=10.0), planned)
    assert device.peak == 8.0 and device.at_once == 2
    assert {event.job for event in events if isinstance(event, Finished)} == set(planned)
    assert not any(isinstance(event, OutOfMemory) for event in events)


def test_runs_that_need_more_than_estimated_wait_and_finish(
    planned: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(10.0, {**dict.fromkeys(planned, 4.0), planned[0]: 9.0})
    use_device(device, monkeypatch)
    events = executed(local.Local(3), planned)
    assert {event.job for event in events if isinstance(event, Finished)} == set(planned)
    assert not any(isinstance(event, Failed) for event in events) and device.peak <= 10.0


def test_a_run_that_runs_out_of_memory_alone_fails(planned: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    use_device(Device(10.0, {**dict.fromkeys(planned, 1.0), planned[1]: 11.0}), monkeypatch)
    events = executed(local.Local(3), planned)
    assert [event.job for event in events if isinstance(event, Failed)] == [planned[1]]
    assert sum(isinstance(event, Finished) for event in events) == len(planned) - 1


ENCODER = '''
import os
import torch

class Encoder(torch.nn.Module):
    """Frames of a waveform; beside other runs, the device has memory for some batches alone."""

    calls = 0

    def forward(self, wavs):
        type(self).calls += 1
        if self.calls > {calls} and ({always} or "SUPERB_EVAL_SHARED_DEVICE" in os.environ):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\\nSee documentation")
        padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        return padded.unfold(1, 400, 320).abs().sort().values
'''

CALLS = 140
"""Forward passes until the encoder runs out of memory: in the midst of the training, behind an evaluation."""

LIVE = ("features.pooled=false", "train.steps=20", "train.eval_every=5", "train.batch_size=4", "train.lr=1e-2")


def config_with(tones: Path, folder: Path, calls: int, always: bool = False) -> SuiteConfig:
    """A suite of `fbank_nonorm` and an encoder that runs out of memory; its features are computed in each batch."""
    inputs.clear_cache()
    (folder / "own").mkdir(parents=True)
    encoder = folder / "own" / "encoder.py"
    encoder.write_text(ENCODER.format(calls=calls, always=always))
    upstreams = (f"{encoder}:Encoder", "fbank_nonorm")
    return SuiteConfig(upstreams, ("ks",), tones, "nano", LIVE, out=folder / "r", store=folder / "store", store_gb=1e-9)


class Steps(NoProgress):
    """Records the updates of the training, and those that were made before."""

    def __init__(self) -> None:
        self.before = 0
        self.done: list[int] = []

    @contextmanager
    def step(self, name: str, total: int, done: int = 0) -> Iterator[Update]:
        self.before += done
        yield lambda done, postfix="", total=None: self.done.append(done) if name.startswith("training") else None


def test_a_run_out_of_memory_is_resumed_with_the_figures_of_an_unbroken_one(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = jobs.expand(config_with(tones, tmp_path / "a", calls=CALLS))
    unbroken, _ = jobs.expand(config_with(tones, tmp_path / "b", calls=CALLS))
    monkeypatch.setenv(out_of_memory.SHARED, "1")
    monkeypatch.setattr(worker, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(worker, "_until_orphaned", iter)  # these lines end before the run does
    out, steps = io.StringIO(), Steps()
    worker.serve(io.StringIO(job.dumps() + "\n"), worker.EventWriter(out))
    *_, before, last = map(json.loads, out.getvalue().splitlines())
    assert last == {"out_of_memory": "CUDA out of memory. Tried to allocate 20.00 GiB."}
    monkeypatch.delenv(out_of_memory.SHARED)
    receipt = execute.execute(job, steps)
    assert 5 < before["done"] < 20, before
    assert steps.before == before["done"] - before["done"] % 5, "it continues from the last evaluation"
    assert steps.done[0] == steps.before + 1
    assert receipt.figures == execute.execute(unbroken, NoProgress()).figures


@pytest.mark.slow
def test_a_suite_resumes_a_run_out_of_memory(tones: Path, tmp_path: Path) -> None:
    config, events = config_with(tones, tmp_path, CALLS), list[Event]()
    outcome = run.run(plans.make_plan(config), local.Local(2), progress_views.recording(events), NoProgress(), 0)
    assert len(outcome.finished) == 2 and not outcome.failed
    (waited,) = (event for event in events if isinstance(event, OutOfMemory))
    assert waited.message == "CUDA out of memory. Tried to allocate 20.00 GiB."
    assert not JobStates(config.out).waits_for_memory(waited.job)


def test_alone_it_fails_with_one_sentence(tones: Path, tmp_path: Path) -> None:
    job, _ = jobs.expand(config_with(tones, tmp_path, calls=8, always=True))
    with pytest.raises(UserError, match=r"memory runs out on this clip of 1 s alone"):
        execute.execute(job, NoProgress())
    failure = JobStates(job.out).failure(job)
    assert failure is not None and failure.fixable and failure.memory_ran_out


def test_memory_that_runs_out_of_no_batch_is_one_sentence_too(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a process finds no memory to start CUDA with."""

    def start_cuda(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory\nCompile with ...")

    monkeypatch.setattr("superb_eval.runs.evaluate.evaluate_seeds", start_cuda)
    (job, _) = jobs.expand(config_with(tones, tmp_path, calls=0))
    with pytest.raises(UserError, match=r"^memory of cpu ran out \(CUDA error: out of memory\). Lower -o train"):
        execute.execute(job, NoProgress())
    monkeypatch.setenv(out_of_memory.SHARED, "1")
    states = JobStates(job.out)
    states.clear_failure(job)
    with pytest.raises(RuntimeError, match="CUDA error: out of memory"):
        execute.execute(job, NoProgress())
    assert states.failure(job) is None and states.lease(job) is None, "it will be resumed"


def test_the_board_prints_the_end_of_a_log_as_it_stands(planned: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    states = JobStates(planned[0].out)
    states.plan(planned[:1])
    line = f"FileNotFoundError: /{'folder/' * 30}clip.wav"
    states.fail(planned[0], "it broke", fixable=False, log=line)
    status.show(planned[0].out, follow=False)
    assert line in capsys.readouterr().out.splitlines()


def test_views_show_that_a_run_waits_for_memory(planned: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    states = JobStates(planned[0].out)
    states.plan(planned[:2])
    states.wait_for_memory(planned[0])
    status.show(planned[0].out, follow=False)
    assert "waits for memory" in capsys.readouterr().out
    with states.acquire(planned[0]):
        assert not states.waits_for_memory(planned[0])
    view = ProgressView(2, SuiteOutcome(), TimeLeft((), 2))
    view.handle(Started(planned[0]))
    view.handle(OutOfMemory(planned[0], "memory ran out"))
    assert view.waiting == {planned[0]} and not view.running and view.summary() == "0 of 2 runs done"
    view.handle(Started(planned[0]))
    assert not view.waiting


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "MPS backend out of memory (MPS allocated: 1 GB)",
    ],
)
def test_errors_beside_others_call_for_waiting(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (RuntimeError(text), torch.OutOfMemoryError("CUDA out of memory")):
        caused = UserError("memory runs out for a single utterance")
        caused.__cause__ = error
        monkeypatch.delenv(out_of_memory.SHARED, raising=False)
        assert out_of_memory.calls_for_parts(error) and not out_of_memory.calls_for_waiting(caused)
        monkeypatch.setenv(out_of_memory.SHARED, "1")
        assert out_of_memory.calls_for_waiting(error) and out_of_memory.calls_for_waiting(caused)
        assert not out_of_memory.calls_for_parts(error)
    assert not out_of_memory.is_out_of_memory(RuntimeError("shapes differ"))
