"""SLURM's job arrays, without SLURM: the scripts' tasks are run by hand, or by a fake `sbatch`."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from superb_eval.errors import UserError
from superb_eval.suite import inputs, jobs
from superb_eval.suite.events import Failed, Finished
from superb_eval.suite.executors import array_task, slurm
from superb_eval.suite.executors.slurm import Slurm
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import SuiteConfig
from superb_eval.suite.resources import Resources

SHORT = ("train.steps=4", "train.eval_every=2", "train.lr=1e-2")


@pytest.fixture
def config(tones: Path, tmp_path: Path) -> SuiteConfig:
    inputs.clear_cache()
    return SuiteConfig(
        ("fbank_nonorm",), ("ks",), tones, "mini", SHORT, (0, 1), tmp_path / "r s", store=tmp_path / "store"
    )


def test_scripts_quote_what_users_write(config: SuiteConfig) -> None:
    scheduler = Slurm(Resources(3, 1.0, 8.0), ("--partition=a b", "--comment=$(touch /tmp/x)'"), at_once=2)
    folder = scheduler.write(jobs.expand(config))
    script_text = (folder / "runs.sh").read_text()
    assert "#SBATCH --array=0-1%2" in script_text and "#SBATCH --cpus-per-task=3" in script_text
    assert "#SBATCH --gres=gpu:1" in script_text and "#SBATCH --mem=8000M" in script_text
    written = [line.removeprefix("#SBATCH ") for line in script_text.splitlines() if line.startswith("#SBATCH")]
    assert {"--partition=a b", "--comment=$(touch /tmp/x)'"} <= {shlex.split(line)[0] for line in written}
    for script in folder.glob("*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
    assert (folder / "passes.jsonl").read_text().count("\n") == 1, "two seeds share a pass"


@pytest.mark.parametrize("option", ["--a=b\n#SBATCH --wrap=x", "x", "--a\0"])
def test_invalid_options_are_refused(config: SuiteConfig, option: str) -> None:
    with pytest.raises(UserError, match="--slurm-options"):
        Slurm(Resources(), (option,)).write(jobs.expand(config))


def test_without_sbatch_the_scripts_are_written_and_named(config: SuiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"no sbatch here.*submit\.sh"):
        Slurm(Resources()).run(jobs.expand(config), lambda event: None)


def fake_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str, queue: str = "echo 7 R") -> None:
    """Put a fake `sbatch` and `squeue` on the path."""
    folder.mkdir()
    for name, text in {"sbatch": body, "squeue": queue}.items():
        path = folder / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(slurm, "QUEUE_POLL_SECONDS", 0.05)


@pytest.mark.slow
def test_tasks_run_by_hand_make_the_results_and_the_scheduler_monitors_them(
    config: SuiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sbatch` here runs each task of an array as bash would, one after the other, in the background."""
    run = 'script="${@: -1}"; echo "7;cluster"; n=$(grep -o "array=0-[0-9]*" "$script" | grep -o "[0-9]*$");'
    run += f'(for i in $(seq 0 $n); do SLURM_ARRAY_TASK_ID=$i bash "$script"; done) >>{tmp_path}/log 2>&1 &'
    fake_slurm(tmp_path / "bin", monkeypatch, run)
    planned, events = jobs.expand(config), []
    JobStates(config.out).plan(planned)
    Slurm(Resources()).run(planned, events.append)
    finished = [event for event in events if isinstance(event, Finished)]
    assert sorted(map(str, (event.job for event in finished))) == sorted(map(str, planned)), (
        tmp_path / "log"
    ).read_text()
    inputs.clear_cache()
    assert all(jobs.finished(job) for job in planned)
    records = [(config.out / event.run / "result.json").read_text() for event in finished]
    assert any('"stored": 72' in text for text in records), "the pass stored the features"


def test_runs_of_a_lost_array_count_as_died(
    config: SuiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_slurm(tmp_path / "bin", monkeypatch, "echo 7", queue="exit 0")
    planned, events = jobs.expand(config), []
    Slurm(Resources()).run(planned, events.append)
    assert [type(event) for event in events] == [Failed, Failed]
    assert all(event.died and "SLURM's job 7 is over" in event.message for event in events)


def test_an_sbatch_that_refuses_is_quoted(config: SuiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_slurm(tmp_path / "bin", monkeypatch, "echo 'invalid partition' >&2; exit 1")
    with pytest.raises(UserError, match="sbatch refuses: invalid partition"):
        Slurm(Resources()).run(jobs.expand(config), lambda event: None)


def test_a_task_reports_a_mistake(config: SuiteConfig, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:  # type: ignore[type-arg]
    from dataclasses import replace

    (folder,) = [Slurm(Resources()).write(jobs.expand(replace(config, data=tmp_path / "gone", seeds=(0,))))]
    assert array_task.main(["runs", str(folder / "runs.jsonl"), "0"]) == 2
    assert "no such corpus folder" in capsys.readouterr().err
    assert sys.executable in (folder / "runs.sh").read_text()
