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

SHORT = ("train.steps=20", "train.eval_every=5")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest embedded corpus, of one task."""
    from superb_eval.corpora.synthetic.generate import synthesise

    pytest.importorskip("espeakng_loader", reason="the extra synth")
    return synthesise("nano", tmp_path_factory.mktemp("nano") / "corpus", tasks=["ks"])


@pytest.mark.slow
def test_a_suite_that_is_killed_repeatedly_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra synth")
    problems, kills = kill.run(tmp_path, kills=2, seed=1, tasks="ks", overrides=SHORT)
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
@pytest.mark.parametrize("name", ["submission", "upstream export"])
def test_a_command_that_is_killed_ends_as_an_undisturbed_one(name: str, tmp_path: Path) -> None:
    kill_commands.prepare(tmp_path)
    problems, moments = kill_commands.run(name, tmp_path, kills=2)
    assert problems == [] and len(moments) == 2


@pytest.mark.slow
def test_a_run_with_few_files_little_memory_or_a_small_disk_is_finished_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_commands.prepare(tmp_path)
    monkeypatch.setattr(limits, "DISKS", (64,) if os.geteuid() == 0 else ())
    found = dict(limits.run("run", tmp_path))
    assert set(found.values()) <= {"finished", "refused"}
    assert found["64 files"] == "finished" and found["1 GB"] == "refused"


def test_differences_of_commands_are_found(tmp_path: Path) -> None:
    for part in ("a", "b"):
        (tmp_path / part / "x").mkdir(parents=True)
        (tmp_path / part / "x/card.json").write_text(f'{{"out": "{tmp_path / part}", "merged": "{part}", "acc": 1}}')
    a, b = (kill_commands.outputs(tmp_path / part, ("*",)) for part in ("a", "b"))
    assert a == b and len(a) == 1
    (tmp_path / "b/x/card.json").write_text("{}")
    (tmp_path / "b/.card.json.tmp").touch()
    assert kill_commands.outputs(tmp_path / "b", ("*",)) != a and kill_commands.leftovers(tmp_path / "b")


@pytest.mark.slow
def test_suites_with_different_recipes_on_one_folder_are_as_each_alone(tmp_path: Path, corpus: Path) -> None:
    rates = ("train.lr=1e-2", "train.lr=1e-3")
    for part, together in (("alone", False), ("together", True)):
        (tmp_path / part).mkdir()
        running = []
        for rate in rates:
            running.append(sharing.suite(corpus, tmp_path / part, "ks", (*SHORT, rate)))
            assert together or running[-1].wait() == 0
        assert [process.wait() for process in running] == [0, 0], (tmp_path / part / "log").read_text()
    assert kill.differences(tmp_path / "alone/results", tmp_path / "together/results") == []
    assert len(list((tmp_path / "together/results").glob("*/*/*/result.json"))) == 8, "two upstreams, seeds and recipes"
