"""Results of several people in one folder: provenance, conflicts, interrupted merges, and hostile folders."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from superb_eval.cli import app
from superb_eval.errors import UserError
from superb_eval.report import page
from superb_eval.results import merge as merging
from superb_eval.results import origin as origins
from superb_eval.results.folder import open_results
from superb_eval.results.merge import Contribution, merge
from superb_eval.results.table.build import TableOptions, collect
from superb_eval.results.verify import verify
from superb_eval.results.verify_checks import Scope
from superb_eval.runtime import atomic_files
from superb_eval.runtime.progress import NoProgress
from tests.results.runs import answers, new_record, vary, write_run


@pytest.fixture
def anna(tmp_path: Path) -> Path:
    for name in ("fbank", "shared"):
        write_run(tmp_path / "anna" / "results", new_record(name, "ks"), answers(0.6, 0))
    return tmp_path / "anna" / "results"


@pytest.fixture
def ben(tmp_path: Path) -> Path:
    write_run(tmp_path / "ben", vary(new_record("hubert", "ks"), corpus__digest="d-ks"), answers(0.9, 1))
    later = vary(new_record("shared", "ks"), started="2026-02-02T00:00:00+00:00", seconds={"features": 1.0})
    write_run(tmp_path / "ben", later, answers(0.6, 0))
    return tmp_path / "ben"


def typed(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["superb-eval", *map(str, words)])
    app.app(standalone_mode=False)


def test_runs_of_two_people_become_one_table_that_names_them(
    anna: Path, ben: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    typed(monkeypatch, "merge", f"anna={anna}", ben, "--out", out)
    assert "3 run(s) copied (anna 2, ben 1), 1 there already, 0 left out" in capsys.readouterr().out
    (table,), left_out = collect(out, TableOptions("strict"), NoProgress())
    assert "Runs by contributor: anna 2, ben 1." in table.notes
    assert sorted(row.name for row in table.rows) == ["fbank", "hubert", "shared"] and not left_out
    typed(monkeypatch, "merge", f"anna={anna}", ben, "--out", out)
    assert "0 run(s) copied, 4 there already" in capsys.readouterr().out
    report = verify(out, Scope(quick=True))
    assert report.summary().endswith("Merged from: anna 2, ben 1.")
    assert {finding.check for finding in report.findings} <= {"recipe", "record"}, "records of tests have no recipe"
    page.write(out, tmp_path / "report.html", page.ReportOptions(TableOptions("strict"), None, 0.0), NoProgress())
    assert "made by anna, from results, merged 20" in (tmp_path / "report.html").read_text(encoding="utf8")
    again = tmp_path / "again"
    merge([Contribution("carl", out)], again)
    made = {origin.contributor for run in open_results(again).runs if (origin := origins.read(run.folder))}
    assert made == {"anna", "ben"}, "who made a run stays known"
    record = next((again / "hubert").rglob("result.json"))
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 0 '))
    assert "origin" in {finding.check for finding in verify(again, Scope(quick=True)).findings}


def test_a_run_with_other_figures_is_refused_or_kept_from_the_first(anna: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_run(other, new_record("shared", "ks"), answers(0.5, 7))
    with pytest.raises(
        UserError, match=r"(?s)--keep-first.*other/shared/ks/\S+ and .*anna/results/.*strict acc is"
    ) as caught:
        merge([Contribution("anna", anna), Contribution("other", other)], tmp_path / "out")
    assert not (tmp_path / "out").exists(), caught.value
    summary = merge([Contribution("other", other), Contribution("anna", anna)], tmp_path / "out", keep_first=True)
    assert (summary.copied, summary.present, len(summary.left_out)) == ({"other": 1, "anna": 1}, 0, 1)
    kept = {run.record.upstream.address: run.folder for run in open_results(tmp_path / "out").runs}
    theirs = next((other / "shared").rglob("predictions.csv"))
    assert (kept["shared"] / "predictions.csv").read_bytes() == theirs.read_bytes()


def test_an_interrupted_merge_is_resumed(anna: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[Path] = []

    def stop_at_the_second_record(path: Path, target: Path) -> None:
        copied.append(path)
        if len([each for each in copied if each.name == "result.json"]) == 2:
            raise KeyboardInterrupt
        atomic_files.write_bytes(target, path.read_bytes())

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(merging, "_copy_file", stop_at_the_second_record)
        with pytest.raises(KeyboardInterrupt):
            merge([Contribution("anna", anna)], out)
    assert len(open_results(out).runs) == 1
    summary = merge([Contribution("anna", anna)], out)
    assert (summary.copied["anna"], summary.present) == (1, 1) and len(open_results(out).runs) == 2


def run_of(folder: Path, upstream: str) -> Path:
    return next((folder / upstream).rglob("result.json")).parent


def test_nothing_but_regular_files_of_the_record_is_copied(anna: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("secret")
    for name in ("linked", "piped", "changed", "outside", "elsewhere", "damaged"):
        write_run(anna, new_record(name, "ks"), answers(0.6, 0))
    linked = run_of(anna, "linked") / "predictions.csv"
    linked.unlink()
    linked.symlink_to(secret)
    piped = run_of(anna, "piped") / "result.json"
    piped.unlink()
    os.mkfifo(piped)
    (run_of(anna, "changed") / "predictions.csv").write_text("id,truth,answer,fold,speaker\n")
    outside = run_of(anna, "outside") / "result.json"
    content = json.loads(outside.read_text())
    outside.write_text(json.dumps({**content, "heads": {"../../../../secret.csv": atomic_files.sha256(secret)}}))
    shutil.move(anna / "elsewhere", anna / "renamed")
    (run_of(anna, "damaged") / "result.json").write_text("{")
    (run_of(anna, "fbank") / "notes.txt").write_text("private")
    (anna / "link").symlink_to(tmp_path)
    write_run(anna, vary(new_record("tried", "ks"), limit=8), answers(0.6, 0))
    summary = merge([Contribution("anna", anna)], tmp_path / "out")
    assert len(open_results(tmp_path / "out").runs) == 2 and len(summary.left_out) == 7
    for words in (
        "no regular file",
        "not the file that the run wrote",
        "no file of a run",
        "of another run",
        "schema",
        "--limit 8",
    ):
        assert any(words in sentence for sentence in summary.left_out), (words, summary.left_out)
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {"result.json", "predictions.csv", "origin.json"}
    piped.parent.rename(run_of(tmp_path / "out", "fbank").parent / "piped")
    assert any("is a pipe" in text for text in open_results(tmp_path / "out").left_out), "and no reader waits for it"


def test_what_may_not_be_read_is_left_out_and_a_good_copy_is_taken_elsewhere(
    anna: Path, ben: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = run_of(anna, "shared") / "predictions.csv"
    closed = {anna / "fbank", shared}
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path not in closed and allowed(path, mode))
    summary = merge([Contribution("anna", anna), Contribution("ben", ben)], tmp_path / "out")
    assert sorted(summary.left_out) == [f"{path}: may not be read." for path in sorted(closed)]
    assert summary.copied == {"ben": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [("nowhere", "nowhere: no such results folder"), ("anna=nowhere", "nowhere: no such"), ("=.", "name before = is")],
)
def test_wrong_contributions_are_one_sentence(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Contribution.parse(text)


def test_a_folder_is_not_merged_into_itself(anna: Path) -> None:
    with pytest.raises(UserError, match="is merged and --out at once"):
        merge([Contribution("anna", anna)], anna)
    assert Contribution.parse(str(anna)).contributor == "results"
