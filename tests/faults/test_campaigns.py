"""Short forms of the campaigns in `tests/campaigns`."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from superb_eval.runtime import processes
from superb_eval.suite import state_files
from tests.campaigns import job_files, kill, kill_commands, limits, sharing, soak
from tests.results import runs

SHORT = ("train.steps=20", "train.eval_every=5")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest embedded corpus, of one task."""
    from superb_eval.corpora.synthetic.generate import synthesise

    pytest.importorskip("espeakng_loader", reason="the extra synth")
    return synthesise("nano", tmp_path_factory.mktemp("nano") / "corpus", tasks=["ks"])


@pytest.mark.slow(seconds=50)
def test_a_suite_that_is_killed_repeatedly_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    """The training is long enough to be killed in, by this seed at the second time."""
    pytest.importorskip("espeakng_loader", reason="the extra synth")
    overrides = ("train.steps=600", "train.eval_every=100")
    problems, kills = kill.run(tmp_path, kills=2, seed=3198, tasks="ks", overrides=overrides)
    assert problems == [] and sum(kills.values()) == 2


def test_differences_are_found(tmp_path: Path, corpus: Path) -> None:
    from superb_eval.runs.config import RunConfig
    from superb_eval.runs.evaluate import evaluate

    for name in ("a", "b"):
        evaluate(RunConfig("fbank_nonorm", "ks", corpus, "nano", SHORT, out=tmp_path / name, store=tmp_path / "store"))
    assert kill.differences(tmp_path / "a", tmp_path / "b") == []
    (head,) = (tmp_path / "b").rglob("probe-1.safetensors")
    head.write_bytes(head.read_bytes()[:-1] + b"x")
    assert len(kill.differences(tmp_path / "a", tmp_path / "b")) == 1
    head.with_name("result.json").unlink()
    assert kill.differences(tmp_path / "a", tmp_path / "b")[0].startswith("runs")
    (tmp_path / "a/.x.tmp").touch()
    assert kill.leftovers(tmp_path) == [str(tmp_path / "a/.x.tmp")]


@pytest.mark.slow
def test_processes_that_share_folders_do_the_work_once(tmp_path: Path, corpus: Path) -> None:
    assert sharing.run(corpus, tmp_path, "ks", processes=2, overrides=SHORT) == []


def test_nothing_grows_from_round_to_round(tmp_path: Path, corpus: Path) -> None:
    """In a process of its own: what other tests left in this one's memory moves its size."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        rounds = alone.submit(soak.run, corpus, tmp_path, ("ks",), 6, SHORT).result()
    assert soak.growth(rounds) == []


def test_growth_is_found() -> None:
    rounds = [soak.Usage(100.0 + 9 * k, 10, 2, 5) for k in range(8)]
    assert soak.growth(rounds) == ["megabytes grew from 127.0 to 163.0"]
    assert soak.growth([soak.Usage(100.0, 10 + k, 2, 5 + k) for k in range(4)]) == [
        "handles grew from 11 to 13",
        "temporary grew from 6 to 8",
    ]


@pytest.mark.parametrize("offset", range(4))
def test_edited_files_of_a_suite_stop_neither_board_nor_suite(offset: int, tmp_path: Path) -> None:
    counts = job_files.run(tmp_path, every=101, offset=25 * offset)
    assert job_files.faults(counts) == [] and counts["executed"] >= 9


def test_a_claim_of_a_live_process_is_waited_for(tmp_path: Path) -> None:
    def claim(path: Path) -> None:
        lease, pid = job_files._base(tmp_path / "out")["claim"], os.getpid()
        ours = replace(lease, machine=processes.machine_id(), pid=pid, started=processes.start_time(pid))
        state_files.write(path, ours)

    assert job_files.attempt(tmp_path, "claim", claim).startswith(f"waits for process {os.getpid()}")


@pytest.mark.slow
def test_a_command_that_is_killed_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    runs.ten_tasks(tmp_path / "official", "hubert", 0.1, 0, profile="superb", corpus__official=True)
    problems, moments = kill_commands.run("submission", tmp_path, kills=1)
    assert problems == [] and len(moments) == 1


@pytest.mark.slow
def test_a_command_that_may_write_no_large_file_is_refused_and_then_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.ten_tasks(tmp_path / "official", "hubert", 0.1, 0, profile="superb", corpus__official=True)
    monkeypatch.setattr(limits, "SHELL", {"small files": "ulimit -n 24 -f 1"})
    monkeypatch.setattr(limits, "DISKS", ())  # which need root
    assert dict(limits.run("submission", tmp_path)) == {"small files": "refused"}


def test_differences_of_commands_are_found(tmp_path: Path) -> None:
    for part in ("a", "b"):
        (tmp_path / part / "x").mkdir(parents=True)
        (tmp_path / part / "x/card.json").write_text(f'{{"out": "{tmp_path / part}", "merged": "{part}", "acc": 1}}')
    a, b = (kill_commands.outputs(tmp_path / part, ("*",)) for part in ("a", "b"))
    assert a == b and len(a) == 1
    (tmp_path / "b/x/card.json").write_text("{}")
    (tmp_path / "b/.card.json.tmp").touch()
    assert kill_commands.outputs(tmp_path / "b", ("*",)) != a and kill_commands.leftovers(tmp_path / "b")
