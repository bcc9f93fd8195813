"""`--limit N`, a try with few utterances: another run than the full one, marked, and in no table or report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import superb_eval
from superb_eval.results import record as records
from superb_eval.results.folder import open_results
from superb_eval.runtime.progress import NoProgress
from superb_eval.suite import jobs
from superb_eval.suite.execute import execute
from superb_eval.suite.jobs import SuiteConfig
from tests.cli.test_app import SHORT, call, refused

__all__ = ["call"]  # a fixture


@pytest.fixture(scope="module")
def made(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a full run, and of a try of the same with --limit 4."""
    folder = tmp_path_factory.mktemp("made") / "r"
    for limit in (None, 4):
        options = {"overrides": SHORT[1::2], "out": folder, "store": folder.parent / "store", "limit": limit}
        superb_eval.evaluate("fbank", "ks", tones, **options)
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return shutil.copytree(made, tmp_path / "r")


def test_run_states_that_it_is_a_try(call, tones: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    tried = call("run", "ks", "-u", "fbank", "--data", tones, "--out", tmp_path / "r", *SHORT, "--limit", "4")
    assert tried.code == 0, tried.err
    assert "warning: --limit 4: a try on few utterances, which tables and reports leave out" in tried.out
    assert "a try with --limit 4: 4 of 36 of train, 4 of 18 of dev, 4 of 18 of test" in tried.err


def test_a_try_is_another_run_that_is_marked_and_in_no_table(call, out: Path, tones: Path) -> None:  # type: ignore[no-untyped-def]
    full, tried = sorted((out / "fbank/ks").iterdir(), key=lambda path: "limit" in path.name)
    assert tried.name.startswith("mini-limit4-seed0-")
    record = records.read(tried / records.NAME)
    assert record.limit == 4 and record.corpus.utterances == {"train": 4, "dev": 4, "test": 4}
    assert records.read(full / records.NAME).limit is None
    for format in ("rich", "csv"):
        table = call("table", out, "--format", format)
        assert table.code == 0 and "left out: 1 run(s) with --limit: fbank ks." in table.err
    report = call("report", out, "--out", out.parent / "r.html")
    assert report.code == 0 and "1 run(s) with --limit: fbank ks." in (out.parent / "r.html").read_text()
    frame = superb_eval.load_results(out)
    assert sorted(frame.limit.fillna(0)) == [0, 4] and list(frame[frame.shown].limit.isna()) == [True]


def test_a_try_is_resumed_predicted_with_and_verified(call, out: Path, tones: Path) -> None:  # type: ignore[no-untyped-def]
    (tried,) = out.glob("fbank/ks/*limit4*")
    words = records.read(tried / records.NAME).command.split()[1:]
    assert "done before" in call(*words, "--out", out, "--resume").err
    assert len(call("predict", tried, tones / "audio/test").out.splitlines()) == 18
    verified = call("verify", out, "--again", "2")
    assert verified.code == 0, verified.out + verified.err
    assert "2 run(s) checked, 0 with findings" in verified.out and "2 reproduced to the bit" in verified.out
    changed = json.loads((tried / records.NAME).read_text()) | {"limit": 5}
    (tried / records.NAME).write_text(json.dumps(changed))
    assert "WRONG" in call("verify", out).out, "the limit is part of what a run is made from"


def test_a_suite_tries_too(call, out: Path, tones: Path) -> None:  # type: ignore[no-untyped-def]
    config = SuiteConfig(("fbank",), ("ks",), tones, overrides=tuple(SHORT[1::2]), out=out, limit=5)
    (job,) = jobs.expand(config)
    assert jobs.Job.loads(job.dumps()) == job
    execute(job, NoProgress())
    words = ("suite", "-u", "fbank", "--tasks", "ks", "--data", tones, "--out", out, *SHORT)
    done = call(*words, "--limit", "5", "--resume")
    assert "nothing to run. Tables and reports leave out the runs that --limit 5 cut" in done.out
    assert "1 to run" in call(*words, "--dry-run").out, "the receipt of a try is none of the full run"
    assert len(open_results(out).tries) == 2


def test_a_folder_of_tries_alone_has_no_table(call, tones: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    record = superb_eval.evaluate("fbank", "ks", tones, overrides=SHORT[1::2], out=tmp_path / "r", limit=4)
    assert record.limit == 4 and "--limit" in record._repr_html_()
    refused(call("table", tmp_path / "r"), "holds no finished run but 1 with --limit, which tables leave out")


def test_a_plan_of_a_try_is_of_few_utterances(call, tones: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = ("plan", "-u", "fbank", "--tasks", "ks", "--data", tones, "--out", tmp_path)
    whole, tried = (call(*words, *limit).out for limit in ((), ("--limit", "4")))
    seconds = [
        float(next(line for line in text.splitlines() if line.startswith("  ks ")).split()[2])
        for text in (whole, tried)
    ]
    assert "1 to run" in tried and seconds[1] <= seconds[0]
