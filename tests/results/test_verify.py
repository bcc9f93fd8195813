"""`verify` reports each change that separates a figure from its predictions, recipe, code, weights or data."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from downstreams.ks import KeywordSpotting
from superb_eval.cli import app
from superb_eval.errors import UserError
from superb_eval.results import code_versions
from superb_eval.results import record as records
from superb_eval.results import verify as verification
from superb_eval.results.folder import run_name
from superb_eval.results.verify import VerifyReport
from superb_eval.results.verify_checks import Scope
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.version import ENGINE_VERSION

SHORT = ("train.steps=20", "train.eval_every=10", "train.batch_size=8", "train.lr=1e-2")

ENCODER = """
import torch
from torch import nn

class Loud(nn.Module):
    def forward(self, wavs):
        frames = [wav.unfold(0, 320, 320).abs() for wav in wavs]
        return {"hidden_states": [torch.stack(frames) * 1.0]}
"""


@pytest.fixture(scope="module")
def made(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, an encoder, a recipe and two runs: what tests copy and damage."""
    root = tmp_path_factory.mktemp("made")
    (root / "encoder.py").write_text(ENCODER)
    (root / "own.yaml").write_text("task: ks\nprofile: mini\ntrain: {steps: 20, eval_every: 10}\n")
    shutil.copytree(tones, root / "corpus")
    return root


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    for name in ("corpus", "encoder.py", "own.yaml"):
        source = made / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    order = RunConfig(
        f"{tmp_path}/encoder.py:Loud", f"{tmp_path}/own.yaml", tmp_path / "corpus", out=tmp_path / "results"
    )
    evaluate(order)
    assert verify(tmp_path / "results").findings == ()
    return tmp_path / "results"


def verify(results: Path, scope: Scope | None = None) -> VerifyReport:
    """Verify results with the code of their encoder trusted."""
    return verification.verify(results, replace(scope or Scope(), trusted=(f"{results.parent}/encoder.py",)))


def the(results: Path, name: str) -> Path:
    (path,) = results.rglob(name)
    return path


def edit_record(results: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    path = the(results, "result.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def messages(report: VerifyReport) -> dict[str, str]:
    found: dict[str, str] = {}
    for finding in report.findings:
        if not finding.remark:
            found[finding.check] = f"{found.get(finding.check, '')} {finding.message}"
    return found


def test_an_edited_metric_and_interval(results: Path) -> None:
    edit_record(results, lambda r: r["metrics"][0].update(value=99.0))
    assert "acc is 99.0000 in the record" in messages(verify(results))["figures"]
    assert verify(results).faulty() == 1
    edit_record(results, lambda r: r["metrics"][0].update(low=0.5))
    assert "interval [0.5000, " in messages(verify(results))["figures"]


def test_an_edited_interval_for_these_speakers(results: Path) -> None:
    edit_record(results, lambda record: record["metrics"][0].update(low_these=0.1, high_these=99.9))
    assert "interval [0.1000, 99.9000] doesn't follow" in messages(verify(results))["figures"]


@pytest.mark.parametrize("changes", [{"low_these": None}, {"population": "new units"}, {"speakers": 99}])
def test_an_interval_for_others_than_the_predictions_name(results: Path, changes: dict[str, object]) -> None:
    edit_record(results, lambda record: record["metrics"][0].update(changes))
    assert "doesn't follow" in (found := messages(verify(results))["figures"]) or "speakers" in found


def test_an_interval_of_an_earlier_method_is_a_remark(results: Path) -> None:
    edit_record(results, lambda record: record["metrics"][0].update(method="an earlier one", low=1.0))
    report = verify(results)
    assert "figures" not in messages(report)
    assert any("another method (an earlier one)" in str(finding) for finding in report.findings)


def test_an_edited_prediction(results: Path) -> None:
    path = the(results, "predictions.csv")
    rows = list(csv.reader(path.open(encoding="utf8")))
    wrong = next(row for row in rows[1:] if row[1] != row[2])
    wrong[2] = wrong[1]
    with path.open("w", newline="", encoding="utf8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    found = messages(verify(results))
    assert "predictions.csv is not the file that the run wrote" in found["files"]
    assert "by its predictions" in found["figures"]


def test_predictions_that_are_gone_or_no_predictions(results: Path) -> None:
    the(results, "predictions.csv").write_text("id,truth\n")
    assert "expected the columns" in messages(verify(results))["figures"]
    the(results, "predictions.csv").unlink()
    assert "predictions.csv is missing" in messages(verify(results))["files"]


def test_a_changed_recipe(results: Path) -> None:
    path = results.parent / "own.yaml"
    path.write_text(path.read_text().replace("steps: 20", "steps: 30"))
    assert "train.steps was 20, is 30" in messages(verify(results))["recipe"]


def test_a_recipe_changed_in_the_record(results: Path) -> None:
    edit_record(results, lambda r: r["recipe"]["train"].update(steps=7))
    assert "not the one that the run was made with" in messages(verify(results))["recipe"]


def test_another_version_of_the_code(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeywordSpotting, "version", 2)
    found = verify(results)
    assert "computed by engine 1, ks 1, and today's code is engine 1, ks 2" in messages(found)["code"]
    assert found.summary() == "1 run(s) checked, 1 with findings (code 1)."


def test_a_recorded_digest_of_sources_is_no_fault(results: Path) -> None:
    edit_record(results, lambda r: r.update(code="0" * 64))
    (finding,) = verify(results).findings
    assert finding.remark and finding.check == "code"
    assert "recorded as a digest of sources" in finding.message and "engine 1, ks 1" in finding.message


@pytest.mark.parametrize("recorded", ["", "0" * 64])
def test_code_from_before_versions_is_outdated_once_its_task_is_raised(
    results: Path, recorded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_record(results, lambda r: r.update(code=recorded))
    monkeypatch.setattr(KeywordSpotting, "version", 2)
    assert "computed by code from before versions" in messages(verify(results))["code"]


def test_swapped_weights(results: Path) -> None:
    path = results.parent / "encoder.py"
    path.write_text(path.read_text().replace("* 1.0", "* 2.0"))
    changed = messages(verify(results))["weights"]
    assert "has changed: its outputs on the probe waveforms, encoder.py" in changed
    assert "weights" not in messages(verify(results, Scope(quick=True)))
    head = the(results, "probe-1.safetensors")
    head.write_bytes(head.read_bytes()[:-4] + b"\0\0\0\1")
    assert "probe-1.safetensors is not the file" in messages(verify(results))["files"]


def test_changed_audio(results: Path) -> None:
    path = next((results.parent / "corpus" / "audio" / "test").glob("*.flac"))
    soundfile.write(path, 0.1 * np.random.default_rng(5).standard_normal(9_000), 16_000)
    assert "are not those of the run" in messages(verify(results))["data"]


def test_a_corpus_that_moved_is_found_with_data(results: Path) -> None:
    shutil.move(results.parent / "corpus", results.parent / "moved")
    (finding,) = verify(results).findings
    assert finding.remark and "give the corpus's folder with --data" in finding.message
    # Its name is the folder's, which the digest doesn't hold.
    assert verify(results, Scope(results.parent / "moved")).findings == ()


def test_an_older_schema_is_named_and_still_loads(results: Path) -> None:
    def older(record: dict) -> None:  # type: ignore[type-arg]
        record["schema_version"] = 1
        del record["code"], record["heads"], record["corpus"]["official"], record["upstream"]["identity"]
        record["upstream"]["fingerprint"] = "0" * 64

    edit_record(results, older)
    the(results, "result.json").parent.rename(the(results, "result.json").parent.with_name(expected_name(results)))
    report = verify(results)
    assert report.faulty() == 0
    assert {finding.check for finding in report.findings} == {"schema", "weights"}
    (compared,) = (finding.message for finding in report.findings if finding.check == "weights")
    assert "was recorded by a digest of its source, before identities were stored" in compared


def expected_name(results: Path) -> str:
    r = records.read(the(results, "result.json"))
    return run_name(r.profile, r.seed, r.recipe_digest, r.upstream.fingerprint, r.corpus.digest)


def test_where_only_outputs_differ_another_platform_is_no_fault(results: Path) -> None:
    def other_bits(record: dict) -> None:  # type: ignore[type-arg]
        record["upstream"]["identity"]["outputs"] = "0" * 64
        record["upstream"]["fingerprint"] = "1" * 64

    def elsewhere(record: dict) -> None:  # type: ignore[type-arg]
        record["hardware"]["cpu"] = "a processor of theirs"
        record["versions"]["torch"] = "2.0"

    edit_record(results, other_bits)
    found = messages(verify(results))["weights"]
    assert "the bits of its outputs on the probe waveforms differ for " in found
    assert "though the platform is the same: something that it imports has changed" in found
    edit_record(results, elsewhere)
    assert "weights" not in messages(verify(results))
    (remark,) = [finding.message for finding in verify(results).findings if finding.remark]
    assert "cpu was a processor of theirs, is " in remark and "torch was 2.0, is " in remark


def test_unexpected_entries_are_remarks_and_an_unreadable_record_is_a_fault(results: Path) -> None:
    (results / "notes.txt").touch()
    (results / "u" / "ks" / "half").mkdir(parents=True)
    (results / "u" / "ks" / "half" / ".lock").touch()
    found = verify(results)
    assert found.faulty() == 0 and len(found.findings) == 2
    assert found.summary() == "1 run(s) checked, 0 with findings."
    (results / "u" / "ks" / "half" / "result.json").write_text("{")
    found = verify(results)
    assert (found.checked, found.faulty()) == (2, 1) and "not a run record" in messages(found)["record"]


def test_markup_and_escapes_in_a_record_are_printed_as_text(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_record(results, lambda r: r["upstream"].update(address="[/red]\x1b[31m"))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.argv", ["superb-eval", "verify", str(results), "--quick"])
    with pytest.raises(SystemExit):
        app.main()
    printed = capsys.readouterr()
    assert "[/red]" in printed.err, "no markup"
    assert "\x1b" not in printed.out and "is of another run" in printed.out


def test_a_record_of_another_run(results: Path) -> None:
    edit_record(results, lambda r: r.update(seed=5))
    assert "belongs in a folder named mini-seed5-" in messages(verify(results))["folder"]


def test_an_unknown_task_and_a_path_out_of_the_run_folder(results: Path) -> None:
    edit_record(results, lambda r: (r.update(task="zz"), r["heads"].update({"../../../own.yaml": "x"})))
    found = messages(verify(results))
    assert "no task is called 'zz'" in found["figures"] and "own.yaml is missing" in found["files"]


def test_audio_changed_with_size_and_time_preserved(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the file system had no time of the last change: `verify` reads again what was read before."""
    path = next((results.parent / "corpus" / "audio" / "test").glob("*.flac"))
    state, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(Path, "stat", lambda found, **more: state if found == path else os.stat(found, **more))
    assert "are not those of the run" in messages(verify(results))["data"]


def test_the_versions_of_a_task_are_its_own() -> None:
    assert code_versions.versions("qbe") == f"engine {ENGINE_VERSION}, qbe 1"
    with pytest.raises(UserError, match="no task is called 'zz'"):
        code_versions.versions("zz")
