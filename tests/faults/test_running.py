"""Faults during a run: files that vanish, losses that are not finite, signals, and hours of audio."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError
from superb_eval.features import extract as extraction
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runtime import processes
from superb_eval.runtime.progress import NoProgress
from superb_eval.suite import jobs
from superb_eval.suite.execute import execute
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import SuiteConfig
from tests.faults.conftest import SHORT, Same


@pytest.fixture
def own(tones: Path, tmp_path: Path) -> Path:
    """A copy of the corpus, to be damaged."""
    return shutil.copytree(tones, tmp_path / tones.name)


@pytest.mark.parametrize("how", ["gone", "shorter", "empty"])
def test_a_file_that_vanishes_during_a_run_is_named_and_its_return_is_enough(
    config: RunConfig, own: Path, same: Same, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, data=own)
    damaged = sorted((own / "audio/test").glob("*.flac"))[3]
    whole = damaged.read_bytes()
    launch = extraction.Extractor.launch

    def damage(*inputs: object) -> object:
        if how == "gone":
            damaged.unlink(missing_ok=True)
        else:
            damaged.write_bytes(whole[: len(whole) // 2] if how == "shorter" else b"")
        return launch(*inputs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(extraction.Extractor, "launch", damage)
        patch.setattr(extraction, "READERS", 1)
        override = (*SHORT, "features.batch_seconds=1")
        with pytest.raises(UserError, match=damaged.name):
            evaluate(replace(config, overrides=override))
    damaged.write_bytes(whole)
    same(*evaluate(config))


def test_losses_that_stay_not_finite_name_step_and_utterances_and_the_saved_state(
    config: RunConfig, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    from downstreams.task_types.classification import Classification

    loss, calls = Classification.loss, []

    def poisoned(self, *inputs):  # type: ignore[no-untyped-def]
        calls.append(1)
        return loss(self, *inputs) * (float("nan") if len(calls) >= 13 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "loss", poisoned)
        with pytest.raises(
            UserError, match=r"step 13: the loss is nan on utterances train-.*, \.\.\..*checkpoint of step 10"
        ):
            evaluate(config)
    record, folder = evaluate(config)
    assert record.training[0].rates[0].resumed_at == [10]
    same(record, folder)


def test_failures_are_stored_with_their_reason(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SuiteConfig(("fbank_nonorm",), ("ks",), own, "mini", SHORT, out=tmp_path / "r", store=tmp_path / "s")
    (job,) = jobs.expand(config)
    (own / "ks/dev.csv").rename(tmp_path / "dev.csv")
    with pytest.raises(UserError, match="has no dev.csv"):
        execute(job, NoProgress())
    failure = JobStates(job.out).failure(job)
    assert failure is not None and failure.fixable and "has no dev.csv" in failure.message

    def breaks(*inputs: object) -> None:
        raise KeyError("a defect")

    (tmp_path / "dev.csv").rename(own / "ks/dev.csv")
    with monkeypatch.context() as patch:
        patch.setattr("superb_eval.runs.evaluate._run", breaks)
        with pytest.raises(KeyError):
            execute(job, NoProgress())
    failure = JobStates(job.out).failure(job)
    assert failure is not None and not failure.fixable and "in breaks" in failure.tail
    receipt = execute(job, NoProgress())
    assert JobStates(job.out).failure(job) is None and JobStates(job.out).lease(job) is None
    assert jobs.finished(job) == job.out / receipt.run and execute(job, NoProgress()) == receipt


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_suite_that_gets_a_signal_leaves_no_process_and_is_resumed(
    number: int, own: Path, tmp_path: Path, same: Same
) -> None:
    steps = ("train.steps=100000", "train.eval_every=5", "train.batch_size=8", "train.lr=1e-2")
    command = [sys.executable, "-m", "superb_eval", "suite", "-u", "fbank_nonorm", "--tasks", "ks", "--data", str(own)]
    command += ["--out", str(tmp_path / "r"), "--store", str(tmp_path / "s"), "--jobs", "1"]
    command += [word for text in steps for word in ("-o", text)]
    # Processes in the background of a shell inherit that SIGINT is ignored.
    reset_sigint = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=reset_sigint)  # noqa: PLW1509
    states, until, worker = JobStates(tmp_path / "r"), time.monotonic() + 400, 0
    while not worker:
        assert time.monotonic() < until and process.poll() is None
        leases = [states.lease(job) for job in (states.planned() if states.folder.is_dir() else [])]
        worker = next((lease.pid for lease in leases if lease is not None and lease.step.startswith("training")), 0)
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=120) in (130, -number)
    while processes.is_alive(worker):
        assert time.monotonic() < until, "its worker is still alive"
        time.sleep(0.05)
    record, folder = evaluate(
        RunConfig("fbank_nonorm", "ks", own, overrides=SHORT, out=tmp_path / "r", store=tmp_path / "s")
    )
    assert record.features.extracted == 0, "extracted features are stored"
    same(record, folder)


def test_an_hour_of_audio_is_read_in_bounded_memory_and_five_hours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 16_000, 2) as file:
        for _ in range(60):
            file.write(np.zeros((60 * 16_000, 2), dtype=np.int16))
    assert path.stat().st_size < 2e6
    samples = audio.read(Clip(path))
    assert len(samples) == 3600 * 16_000
    assert audio.seconds(Clip(path)) == 3600
    with soundfile.SoundFile(path, "w", 8_000, 1) as file:
        for _ in range(5):
            file.write(np.zeros(3600 * 8_000, dtype=np.int16))
    with pytest.raises(UserError, match=r"lasts 5\.0 h; cut it into rows of at most 4 h by start and end"):
        audio.seconds(Clip(path))
    assert audio.seconds(Clip(path, 3600.0, 7200.0)) == 3600
    assert len(audio.read(Clip(path, 16_000.0, 16_001.0))) == 16_000
