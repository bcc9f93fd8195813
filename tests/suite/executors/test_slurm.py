"""SLURM's arrays, without SLURM: the scripts' tasks are run by hand, or by an `sbatch` of ours."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from superb_eval.errors import UserError
from superb_eval.suite import jobs
from superb_eval.suite.events import Failed, Finished
from superb_eval.suite.executors import array_task, slurm
from superb_eval.suite.executors.slurm import Slurm
from superb_eval.suite.job_state import JobStates
from superb_eval.suite.jobs import Request
from superb_eval.suite.resources import Resources

SHORT = ("train.steps=4", "train.eval_every=2", "train.lr=1e-2")


@pytest.fixture
def request_(tones: Path, tmp_path: Path) -> Request:
    jobs.forget()
    return Request(("fbank_nonorm",), ("ks",), tones, "mini", SHORT, 2, tmp_path / "r s", store=tmp_path / "store")


def test_scripts_quote_what_users_write(request_: Request) -> None:
    scheduler = Slurm(Resources(3, 1.0, 8.0), ("--partition=a b", "--comment=$(touch /tmp/x)'"), at_once=2)
    folder = scheduler.write(jobs.expand(request_))
    cells = (folder / "cells.sh").read_text()
    assert "#SBATCH --array=0-1%2" in cells and "#SBATCH --cpus-per-task=3" in cells
    assert "#SBATCH --gres=gpu:1" in cells and "#SBATCH --mem=8000M" in cells
    written = [line.removeprefix("#SBATCH ") for line in cells.splitlines() if line.startswith("#SBATCH")]
    assert {"--partition=a b", "--comment=$(touch /tmp/x)'"} <= {shlex.split(line)[0] for line in written}
    for script in folder.glob("*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
    assert (folder / "passes.jsonl").read_text().count("\n") == 1, "two seeds share a pass"


@pytest.mark.parametrize("option", ["--a=b\n#SBATCH --wrap=x", "x", "--a\0"])
def test_options_that_are_none_are_refused(request_: Request, option: str) -> None:
    with pytest.raises(UserError, match="--slurm-options"):
        Slurm(Resources(), (option,)).write(jobs.expand(request_))


def test_without_sbatch_the_scripts_stay_and_are_named(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"no sbatch here.*submit\.sh"):
        Slurm(Resources()).run(jobs.expand(request_), lambda event: None)


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str, queue: str = "echo 7 R") -> None:
    """Put an `sbatch` and a `squeue` on the path."""
    folder.mkdir()
    for name, text in {"sbatch": body, "squeue": queue}.items():
        path = folder / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "EVERY", 0.05)
    monkeypatch.setattr(slurm, "QUEUE_EVERY", 0.05)


@pytest.mark.slow
def test_tasks_run_by_hand_make_the_results_and_the_scheduler_follows(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sbatch` here runs each task of an array as bash would, one after the other, in the background."""
    run = 'script="${@: -1}"; echo "7;cluster"; n=$(grep -o "array=0-[0-9]*" "$script" | grep -o "[0-9]*$");'
    run += f'(for i in $(seq 0 $n); do SLURM_ARRAY_TASK_ID=$i bash "$script"; done) >>{tmp_path}/log 2>&1 &'
    pretend(tmp_path / "bin", monkeypatch, run)
    wanted, told = jobs.expand(request_), []
    JobStates(request_.out).plan(wanted)
    Slurm(Resources()).run(wanted, told.append)
    finished = [event for event in told if isinstance(event, Finished)]
    assert sorted(map(str, (event.job for event in finished))) == sorted(map(str, wanted)), (
        tmp_path / "log"
    ).read_text()
    jobs.forget()
    assert all(jobs.finished(job) for job in wanted)
    records = [(request_.out / event.run / "result.json").read_text() for event in finished]
    assert any('"stored": 72' in text for text in records), "the pass filled the store"


def test_an_array_that_is_gone_leaves_its_cells_to_be_tried_again(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path / "bin", monkeypatch, "echo 7", queue="exit 0")
    wanted, told = jobs.expand(request_), []
    Slurm(Resources()).run(wanted, told.append)
    assert [type(event) for event in told] == [Failed, Failed]
    assert all(event.died and "SLURM's job 7 is over" in event.sentence for event in told)


def test_an_sbatch_that_refuses_is_quoted(request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path / "bin", monkeypatch, "echo 'invalid partition' >&2; exit 1")
    with pytest.raises(UserError, match="sbatch refuses: invalid partition"):
        Slurm(Resources()).run(jobs.expand(request_), lambda event: None)


def test_a_task_says_what_its_user_can_mend(request_: Request, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:  # type: ignore[type-arg]
    from dataclasses import replace

    (folder,) = [Slurm(Resources()).write(jobs.expand(replace(request_, data=tmp_path / "gone", seeds=1)))]
    assert array_task.main(["cells", str(folder / "cells.jsonl"), "0"]) == 2
    assert "no such corpus folder" in capsys.readouterr().err
    assert sys.executable in (folder / "cells.sh").read_text()
