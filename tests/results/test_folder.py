"""A folder with missing, incomplete, duplicate and unexpected files: readable runs are shown, the rest is listed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import superb_eval
from superb_eval.errors import UserError
from superb_eval.report import page
from superb_eval.report.page import ReportOptions
from superb_eval.results import record as records
from superb_eval.results.folder import find_run, open_results
from superb_eval.results.table import build
from superb_eval.results.table.build import TableOptions
from superb_eval.results.verify import verify
from superb_eval.results.verify_checks import Scope
from superb_eval.runtime.progress import NoProgress
from tests.results.runs import answers, new_record, vary, write_run


def test_seeds_form_one_group_with_the_newest_run_of_each(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path, vary(new_record("fbank", "ks"), seed=seed), answers(0.6, seed))
    old = vary(new_record("fbank", "ks"), recipe_digest="older", started="2025-01-01T00:00:00+00:00")
    write_run(tmp_path, old, answers(0.1, 9))
    results = open_results(tmp_path)
    (groups,) = results.run_groups.values()
    group = groups["fbank", "ks"]
    assert [run.record.seed for run in group.runs] == [0, 1, 2]
    assert group.others == 1, "the run of another recipe is no repetition"
    assert len(results.shown) == 3


def test_one_corpus_under_two_paths_is_one_table(tmp_path: Path) -> None:
    """Its name is that of its folder; what it holds is the same. Another task's runs follow by the name."""

    def write(upstream: str, task: str, name: str, digest: str, hour: int) -> None:
        record = vary(new_record(upstream, task), started=f"2026-01-01T{hour:02}:00:00+00:00")
        corpus = record.corpus.model_copy(update={"name": name, "digest": digest})
        write_run(tmp_path, record.model_copy(update={"corpus": corpus}), answers(0.6, hour))

    write("fbank", "ks", "mine", "k", 1)
    write("hubert", "ks", "copy", "k", 2)
    write("hubert", "sid", "copy", "s", 3)
    write("fbank", "sid", "other", "o", 4)
    tables = {corpus: sorted(groups) for (corpus, _), groups in open_results(tmp_path).run_groups.items()}
    assert tables == {"mine": [("fbank", "ks"), ("hubert", "ks"), ("hubert", "sid")], "other": [("fbank", "sid")]}


def test_a_run_is_found_in_a_folder_above_it_where_it_is_the_only_one(tmp_path: Path) -> None:
    first = write_run(tmp_path, new_record("fbank", "ks"), answers(0.6, 0))
    for folder in (first, first.parent, first.parent.parent, tmp_path):
        assert find_run(folder) == first
    second = write_run(tmp_path, vary(new_record("fbank", "ks"), seed=1), answers(0.6, 1))
    with pytest.raises(UserError, match=r"holds 2 finished runs. Give one of them:") as error:
        find_run(first.parent)
    assert str(first) in str(error.value) and str(second) in str(error.value)
    with pytest.raises(UserError, match=r"holds no finished run. Expected a folder with result.json"):
        find_run(tmp_path / "absent")


def test_unexpected_entries_are_listed(tmp_path: Path) -> None:
    run_folder = write_run(tmp_path, new_record("fbank", "ks"), answers(0.6, 0))
    unfinished = tmp_path / "hubert" / "ks" / "mini-seed0-0000000000"
    unfinished.mkdir(parents=True)
    (unfinished / ".lock").touch()
    truncated = tmp_path / "hubert" / "sid" / "mini-seed0-1111111111"
    truncated.mkdir(parents=True)
    (truncated / "result.json").write_text((run_folder / "result.json").read_text()[:400])
    newer = tmp_path / "hubert" / "er" / "mini-seed0-2222222222"
    newer.mkdir(parents=True)
    content = json.loads((run_folder / "result.json").read_text())
    (newer / "result.json").write_text(json.dumps({**content, "schema_version": records.SCHEMA_VERSION + 1}))
    (tmp_path / "holiday.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / ".hidden").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    for part in ("metrics", "training"):
        (tmp_path / "hubert" / "pr" / part).mkdir(parents=True)
        (tmp_path / "hubert" / "pr" / part / "result.json").write_text(json.dumps({**content, part: []}))
    (tmp_path / "hubert" / "ic" / "run" / "result.json").mkdir(parents=True)
    results = open_results(tmp_path)
    assert len(results.runs) == 1
    listed = "\n".join(results.left_out)
    assert [len(results.unexpected), len(results.unreadable)] == [3, 5]
    for words in ("0000000000: an unfinished run", "1111111111", "holiday.jpg: is no part", "reads up to"):
        assert words in listed
    for words in (
        "loop: holds no run",
        "`metrics` is empty",
        "`training` is empty",
        "ic/run/result.json: is a folder",
    ):
        assert words in listed


def test_commands_show_the_readable_runs_of_a_damaged_folder(complete: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(complete, tmp_path / "damaged")
    runs = {path.parents[1].name: path.parent for path in folder.glob("hubert/*/*/result.json")}
    (runs["pr"] / "predictions.csv").unlink()
    (runs["sid"] / "predictions.csv").write_text("")
    (runs["ks"] / "result.json").write_bytes(b"\xff{")
    (runs["ic"] / "labels.json").write_text("[")
    shutil.copytree(runs["er"], runs["er"].parent / "copy")
    (folder / "layers" / "x").mkdir(parents=True)
    (folder / "layers" / "x" / "layers.json").write_text("{")
    tables, left_out = build.collect(folder, TableOptions(against="hubert"))
    (table,) = tables
    listed = "\n".join(left_out)
    assert all(name in listed for name in ("pr/", "sid/", "ks/", "ic/"))
    er = table.cell("hubert", ("er", "acc"))
    assert er and er.marks == "*", "of the two alike, one is shown"
    assert table.cell("hubert", ("ks", "acc")) is None
    assert table.cell("hubert", ("pr", "per")), "its record is whole"
    text = page.html(folder, ReportOptions(audio_mb=0), NoProgress())
    assert "layers.json: can&#39;t be read" in text and "holds no predictions" not in text
    checks = {finding.check for finding in verify(folder, Scope(quick=True)).findings}
    assert {"record", "files", "figures", "folder", "recipe"} <= checks
    assert len(superb_eval.load_results(folder).attrs["left_out"]) == 1


def test_an_older_record_still_loads(tmp_path: Path) -> None:
    path = write_run(tmp_path, vary(new_record("fbank", "ks"), schema_version=1), answers(0.6, 0)) / "result.json"
    content = json.loads(path.read_text())
    for key in ("code", "heads"):
        del content[key]
    del content["corpus"]["official"]
    path.write_text(json.dumps(content))
    record = records.read(path)
    assert (record.schema_version, record.code, record.heads, record.corpus.official) == (1, "", {}, False)


def test_the_frame_is_tidy(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, vary(new_record("fbank", "ks"), seed=seed), answers(0.6, seed))
    (tmp_path / "unexpected.txt").touch()
    frame = superb_eval.load_results(tmp_path)
    assert list(frame.seed) == [0, 1] and set(frame.upstream) == {"fbank"} and frame.shown.all()
    assert (frame.low < frame.value).all() and (frame.value < frame.high).all()
    assert set(frame.n) == {300} and set(frame.metric) == {"acc"}
    assert "unexpected.txt" in frame.attrs["left_out"][0]
    with pytest.raises(UserError, match="no such results folder"):
        superb_eval.load_results(tmp_path / "absent")
