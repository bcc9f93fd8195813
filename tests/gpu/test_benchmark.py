"""The benchmark of a GPU runs at toy sizes on a CPU, and goes on where a line fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from tests.benchmarks import gpu
from tests.benchmarks.gpu import Bench, BenchmarkLine, Figures, Goal


def test_every_line_can_be_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        gpu.main("cpu", True, tmp_path / "gpu.json")
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert [line["what"] for line in content["lines"]] == [line.what for line in gpu.LINES]
    assert [line["error"] for line in content["lines"]] == [""] * len(gpu.LINES)
    assert all(value > 0 for line in content["lines"] for value in line["figures"].values())
    for line, measured in zip(gpu.LINES, content["lines"], strict=True):
        assert {goal.figure for goal in line.goals} <= measured["figures"].keys()
    assert not ended.value.exit_code
    assert sum(text.startswith("| ") for text in capsys.readouterr().out.splitlines()) == 2 + len(gpu.LINES)


def test_a_line_that_fails_has_its_error_and_the_next_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(bench: Bench) -> Figures:
        raise RuntimeError("out of memory. Try less.")

    good = BenchmarkLine("good", lambda bench: Figures({"s": 3.0}, "a note"), (Goal("s", "<=", 2), Goal("s", ">=", 1)))
    monkeypatch.setattr(gpu, "LINES", (BenchmarkLine("bad", failing, (Goal("s", "<=", 2),)), good))
    with pytest.raises(typer.Exit) as ended:
        gpu.main("cpu")
    assert ended.value.exit_code == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "| bad | RuntimeError: out of memory |  |  |",
        "| good | 3 s | s <= 2: missed, s >= 1: met | a note |",
    ]
