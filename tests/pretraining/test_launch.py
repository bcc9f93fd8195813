"""Processes, signals and the log of a training."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import pytest

from superb_eval.errors import UserError
from superb_eval.pretraining import launch
from superb_eval.pretraining.trainer import StopSignal
from superb_eval.pretraining.training_log import TrainingLog

SLURM = {"SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (3, 1)),
        ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"}, (4, 2)),
        (SLURM, (4, 2)),
        ({**SLURM, "SLURM_JOB_NAME": "bash"}, (3, 1)),
        ({**SLURM, "SLURM_NTASKS": "1"}, (3, 1)),
    ],
)
def test_launchers_set_the_number_of_processes(
    environment: dict[str, str], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", *SLURM):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launch._process_layout(3) == expected


def test_a_missing_gpu_is_explained() -> None:
    with pytest.raises(UserError, match=r"99 GPU\(s\) requested, \d+ found"):
        launch.launch_fabric("cuda", 99, "float32")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_recorded_and_a_second_one_has_its_usual_effect(number: signal.Signals) -> None:
    handled = []
    before = signal.signal(number, lambda *_: handled.append(number))
    try:
        with StopSignal() as stop:
            assert not stop.received
            os.kill(os.getpid(), number)
            assert stop.received and not handled
            os.kill(os.getpid(), number)
            assert handled == [number]
        os.kill(os.getpid(), number)
        assert handled == [number] * 2
    finally:
        signal.signal(number, before)


def test_lines_of_the_log_are_means_and_a_resumed_log_starts_at_the_checkpoint(
    tmp_path: Path,
) -> None:
    def lines() -> list[dict[str, str]]:
        with (tmp_path / "log.csv").open(encoding="utf8") as file:
            return list(csv.DictReader(file))

    curve: list[dict[str, float]] = []
    with TrainingLog(tmp_path, curve, writes=True) as log:
        assert log.postfix() == ""
        for step, loss in enumerate((1.0, 2.0, 6.0), start=1):
            log.add(step, {"loss": loss}, seconds=2.0)
        log.write_means(6.0)
        checkpoint = [dict(line) for line in curve]
        log.write_metrics(3, {"probe": 50.0})
        log.add(4, {"loss": 8.0}, seconds=2.0)
        log.write_means(8.0)
        assert log.postfix().startswith("loss 8.000")
    assert [(row["step"], row["loss"], row["probe"]) for row in lines()] == [
        ("3", "3", ""),
        ("3", "", "50"),
        ("4", "8", ""),
    ]
    assert float(lines()[0]["hours"]) == pytest.approx(6 / 3600, rel=1e-4)
    with TrainingLog(tmp_path, checkpoint, writes=True):
        assert len(lines()) == 1
    with TrainingLog(tmp_path / "other", checkpoint, writes=False):
        assert not (tmp_path / "other").exists()


def test_more_processes_than_cores_can_serve_are_refused_before_any_is_started() -> None:
    with pytest.raises(UserError, match=r"--devices 4294967296: this machine has cores for at most \d+ processes"):
        launch.launch_fabric("cpu", 4_294_967_296, "float32")
