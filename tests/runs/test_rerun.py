"""`verify --again` makes runs again without touching the recorded ones, and detects a changed figure."""

from __future__ import annotations

import csv
import hashlib
import json
import tempfile
from pathlib import Path

import pytest
import torch

from superb_eval.cli import app
from superb_eval.corpora.synthetic.generate import synthesise
from superb_eval.results import record as records
from superb_eval.results.folder import open_results
from superb_eval.results.stats import scoring, training_spread
from superb_eval.results.stats.training_spread import TrainingSpread
from superb_eval.results.verify import VerifyFinding
from superb_eval.runs import rerun
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runtime import threads
from superb_eval.runtime.progress import NoProgress

SHORT = ("train.steps=20", "train.eval_every=10", "train.batch_size=8")


@pytest.fixture(autouse=True)
def _spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_spread, "find", lambda record, key: TrainingSpread(2.0, 3.0, 20.0, "a study"))


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nano") / "corpus"
    synthesise("nano", root, tasks=("ks",), workers=1)
    return root


@pytest.fixture
def results(nano: Path, tmp_path: Path) -> Path:
    """Two finished runs on the nano corpus."""
    for seed in (0, 1):
        evaluate(RunConfig("fbank_nonorm", "ks", nano, overrides=SHORT, seed=seed, out=tmp_path / "results"))
    return tmp_path / "results"


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Return the bytes of each file and its time of change."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def verify(*words: object) -> int:
    """Call `superb-eval verify` and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["superb-eval", "verify", *map(str, words)])
        try:
            app.main()
        except SystemExit as exit_:
            return int(exit_.code or 0)
    return 0


def test_runs_are_reproduced_and_their_records_left_alone(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = contents(results)
    assert verify(results, "--again", 1, "--store", tmp_path / "empty-store") == 0
    printed = capsys.readouterr()
    assert printed.out.count("reproduced ") == 2, "the run, and the summary"
    assert "predictions and figures to the bit, on the same platform" in printed.out
    assert "1 run(s) made again: 1 reproduced to the bit." in printed.out
    assert "run 1 of 1 again" in printed.err
    assert contents(results) == before
    assert not any(temporary.glob("superb-eval-again-*"))


def change_answers(folder: Path) -> None:
    """Give a run other predictions, and the figures and digests that follow from them: no other check can notice."""
    path = folder / records.PREDICTIONS
    rows = list(csv.reader(path.open(encoding="utf8")))
    for row in rows[1:]:
        row[2] = row[1]
    with path.open("w", newline="", encoding="utf8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    content = json.loads((folder / records.NAME).read_text())
    record = records.read(folder / records.NAME)
    metrics = scoring.metrics(scoring.load_task(record, folder), scoring.run_predictions(folder), "strict")
    content["metrics"] = [metric.model_dump() for metric in metrics]
    content["predictions"][records.PREDICTIONS] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / records.NAME).write_text(json.dumps(content))


def test_a_figure_that_its_command_does_not_give_is_detected(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = open_results(results).runs[1].folder
    change_answers(changed)
    assert verify(results) == 0, "figures follow from predictions, which are those of the record"
    assert verify(results, "--again", 5) == 2
    printed = capsys.readouterr()
    assert f"OUTSIDE {changed}: acc 100.00 recorded" in printed.out
    assert "2 run(s) made again: 1 reproduced to the bit, 1 outside the prediction interval." in printed.out
    assert "1 of 2 run(s) don't hold" in printed.err


def test_a_corpus_that_is_gone_is_named(results: Path, nano: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run, _) = open_results(results).runs
    gone = run.record.command.replace(str(nano), str(nano.with_name("gone")))
    (run.folder / records.NAME).write_text(run.record.model_copy(update={"command": gone}).model_dump_json())
    (found,) = rerun.rerun_all([records_of(run.folder, results)], None, None, NoProgress())
    assert found.outcome == "FAILED" and found.faulty() and "gone" in found.message
    assert verify(results, "--again", 2) == 2
    assert "1 that can't be made again" in capsys.readouterr().out


def records_of(folder: Path, results: Path):  # type: ignore[no-untyped-def]
    return next(run for run in open_results(results).runs if run.folder == folder)


def test_a_run_is_made_on_the_threads_of_its_record(results: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run = open_results(results).runs[0]
    single = run.record.model_copy(update={"hardware": {**run.record.hardware, "torch_threads": 1}})
    again = rerun.rerun(single, tmp_path / "again", None, None, NoProgress())
    assert again.hardware["torch_threads"] == 1 and torch.get_num_threads() == before
    assert again.hardware["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert threads.thread_settings()["torch_threads"] == before


def test_the_choice_is_the_same_each_time_and_leaves_out_changed_runs(results: Path) -> None:
    runs = open_results(results).runs
    assert rerun.choose(runs, 1) == rerun.choose(runs[::-1], 2)[:1] and len(rerun.choose(runs, 9)) == 2
    changed = VerifyFinding(runs[0].folder, "recipe", "the recipe has changed")
    remark = VerifyFinding(runs[1].folder, "data", "not compared", remark=True)
    assert rerun.repeatable(runs, [changed, remark]) == [runs[1]]
