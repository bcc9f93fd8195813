"""`quick`: what it asks the suite for, and that a cell that fails doesn't hide the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from superb_eval.cli import suite as command
from superb_eval.cli.app import app
from superb_eval.errors import UserError
from superb_eval.runs import evaluate
from superb_eval.runs.config import RunConfig

SHORT = ("train.steps=20", "train.eval_every=10", "train.lr=1e-2")


@pytest.fixture
def suite(tones: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A suite that runs KS on tones, in this process; what it was asked for is noted."""
    asked: list[tuple[Any, ...]] = []

    def run(upstreams: str, tasks: str, profile: str, out: Path, jobs: int | None) -> None:
        asked.append((upstreams, tasks, profile, jobs))
        for name in ("fbank_nonorm", "fbank"):
            evaluate.evaluate(RunConfig(name, "ks", tones, profile, SHORT, out=out, store=out.parent / "store"))
        if "random:7" in upstreams:
            raise UserError("1 cell(s) failed; see above.")

    monkeypatch.setattr(command, "suite", run)
    return asked


def test_it_ends_in_the_table_and_the_report(suite: list[tuple[Any, ...]], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["quick", "fbank", "--tasks", "ks,sid", "--out", str(tmp_path / "q")])
    assert result.exit_code == 0, result.output
    assert suite == [("fbank_nonorm,distilhubert_mini,fbank", "ks,sid", "nano", None)]
    assert "fbank_nonorm" in result.stdout and "A first picture" in result.stdout
    assert (tmp_path / "q/report.html").is_file()


def test_what_ran_is_shown_though_a_cell_failed(suite: list[tuple[Any, ...]], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["quick", "hubert_nano@random:7", "--out", str(tmp_path / "q"), "--jobs", "1"])
    assert isinstance(result.exception, UserError) and "1 cell(s) failed" in str(result.exception)
    assert "A first picture" in result.stdout and suite[0][3] == 1


def test_a_name_that_cannot_be_opened_is_refused_before_anything_runs(
    suite: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["quick", "hubrt", "--out", str(tmp_path / "q")])
    assert "no upstream is called 'hubrt'" in str(result.exception) and "first picture" not in result.stdout
    assert not suite and not (tmp_path / "q").exists()


def test_an_upstream_that_stands_beside_anyway_is_run_once(suite: list[tuple[Any, ...]], tmp_path: Path) -> None:
    CliRunner().invoke(app, ["quick", "distilhubert_mini", "--out", str(tmp_path / "q")])
    assert suite[0][0] == "fbank_nonorm,distilhubert_mini"
