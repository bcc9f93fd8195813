"""What commands write about results takes the place of their own earlier output alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from downstreams.base import Prediction
from superb_eval.results.record import RunRecord
from tests.campaigns.commands import type_command
from tests.results.runs import answers, new_record, vary, write_run


def official(task: str) -> RunRecord:
    """A record that may be submitted."""
    return vary(new_record("hubert", task), profile="superb", corpus__official=True)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for upstream in ("one", "other"):
        write_run(tmp_path / "r", new_record(upstream, "ks"), answers(0.6, 1, count=40))
    return tmp_path / "r"


@pytest.mark.parametrize("name", ["t.md", "t.tex", "t.csv", "t.json", "t.txt"])
def test_a_table_takes_the_place_of_an_earlier_one_alone(name: str, results: Path, tmp_path: Path) -> None:
    out = tmp_path / name
    words = ("table", results, "--out", out)
    assert type_command(*words).code == 0
    earlier = out.read_bytes()
    assert type_command(*words).code == 0 and out.read_bytes() == earlier
    out.write_text("my own notes")
    outcome = type_command(*words)
    assert outcome.refused and f"{out}: holds something else than a table of superb-eval." in outcome.err
    assert out.read_text() == "my own notes"


def test_a_report_writes_over_no_record(results: Path, tmp_path: Path) -> None:
    record = next(results.glob("one/*/*/result.json"))
    before = record.read_bytes()
    outcome = type_command("report", results, "--out", record, "--audio-mb", 0)
    assert outcome.refused and "holds something else than a report" in outcome.err and record.read_bytes() == before
    for out, why in ((results, "is a folder"), (record / "report.html", "is no folder")):
        outcome = type_command("report", results, "--out", out, "--audio-mb", 0)
        assert outcome.refused and why in outcome.err
    assert type_command("table", results, "--out", "/dev/null").code == 0 and not Path("/dev/null").is_file()


@pytest.mark.parametrize("words", [("table",), ("report", "--audio-mb", 0)])
def test_a_link_stays_and_what_it_leads_to_is_written(words: tuple[str, ...], results: Path, tmp_path: Path) -> None:
    (tmp_path / "dated").mkdir()
    link, target = tmp_path / "latest.html", tmp_path / "dated/today.html"
    link.symlink_to(target)
    command, *options = words
    for _ in range(2):  # a new file, and an earlier one
        assert type_command(command, results, *options, "--out", link).code == 0
        assert link.is_symlink() and target.is_file() and not target.is_symlink()
    target.write_text("my own notes")
    assert type_command(command, results, *options, "--out", link).refused and target.read_text() == "my own notes"
    (tmp_path / "circle.html").symlink_to("circle.html")
    outcome = type_command(command, results, *options, "--out", tmp_path / "circle.html")
    assert outcome.refused and "its links lead in a circle" in outcome.err and (tmp_path / "circle.html").is_symlink()


def test_a_submission_fills_a_new_folder_or_its_own(tmp_path: Path) -> None:
    write_run(tmp_path / "r", official("ks"), answers(0.6, 1, count=40))
    words = ("export", tmp_path / "r", "--submission", "hubert", "--out", tmp_path / "out")
    assert type_command(*words).code == 0 and type_command(*words).code == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("mine")
    outcome = type_command(*words[:-1], tmp_path / "mine")
    assert outcome.refused and "holds letter.txt, which this command didn't write" in outcome.err


def test_a_merge_changes_no_other_file_in_its_target(results: Path, tmp_path: Path) -> None:
    """Of a run that isn't finished there: a merge can't know whose its predictions are."""
    out = tmp_path / "out"
    words = ("merge", results, "--out", out)
    assert type_command(*words).code == 0
    run = next(out.glob("one/*/*"))
    (run / "result.json").unlink()
    assert type_command(*words).code == 0, "an interrupted merge is resumed"
    (run / "result.json").write_text("{")
    (run / "predictions.csv").write_text("mine")
    outcome = type_command(*words)
    assert outcome.refused and "predictions.csv: is there, and not that of" in outcome.err
    assert (run / "predictions.csv").read_text() == "mine"


def test_predictions_that_are_none_are_named_with_their_task(tmp_path: Path) -> None:
    write_run(tmp_path / "r", official("ic"), [Prediction("u", "a", "not JSON")])
    outcome = type_command("export", tmp_path / "r", "--submission", "hubert", "--out", tmp_path / "out")
    assert outcome.refused and "its predictions are none for the leaderboard" in outcome.err
    assert not (tmp_path / "out").exists(), "nothing is written where something is wrong"
