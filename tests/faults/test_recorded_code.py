"""A record's upstream that is code runs only where the person names its file: people pass results folders on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from superb_eval.results import record as records
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from tests.campaigns.commands import TypedCommand, type_command
from tests.faults.conftest import SHORT

ENCODER = """
from pathlib import Path
import torch

CANARY.touch()

class Loud(torch.nn.Module):
    def forward(self, wavs):
        return {"hidden_states": [torch.stack([wav.unfold(0, 320, 320).abs() for wav in wavs])]}
"""


@pytest.fixture(scope="module")
def made(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a run of its owner's encoder, whose code lies in the folder too."""
    root = tmp_path_factory.mktemp("made")
    (root / "r").mkdir()
    (root / "r/encoder.py").write_text(ENCODER.replace("CANARY", f"Path({str(root / 'ran')!r})"))
    evaluate(RunConfig(f"{root}/r/encoder.py:Loud", "ks", tones, overrides=SHORT, out=root / "r", store=root / "s"))
    return root


@pytest.fixture(autouse=True)
def _nothing_ran(made: Path) -> None:
    (made / "ran").unlink(missing_ok=True)


def run_of(made: Path) -> Path:
    (path,) = made.rglob(records.NAME)
    return path.parent


def in_vain(made: Path, *words: object) -> TypedCommand:
    """Call a command, which must not run the code."""
    outcome = type_command(*words)
    assert not (made / "ran").exists(), "the code ran"
    return outcome


def test_predict_runs_code_only_where_it_is_named(made: Path, tones: Path) -> None:
    words = ("predict", run_of(made), next((tones / "audio/test").glob("*.flac")))
    outcome = in_vain(made, *words)
    assert outcome.code == 2 and f"add --trust {made}/r/encoder.py" in outcome.err
    outcome = type_command(*words, "--trust", made / "r/encoder.py")
    assert outcome.code == 0 and (made / "ran").exists(), outcome.err


def test_onnx_runs_code_only_where_it_is_named(made: Path, tmp_path: Path) -> None:
    words = ("onnx", run_of(made), "--out", tmp_path / "model.onnx")
    outcome = in_vain(made, *words)
    assert outcome.code == 2 and f"add --trust {made}/r/encoder.py" in outcome.err
    type_command(*words, "--trust", made / "r/encoder.py")
    assert (made / "ran").exists()


def test_verify_checks_all_but_the_outputs_and_names_the_option(made: Path) -> None:
    outcome = in_vain(made, "verify", made / "r")
    assert outcome.code == 0, outcome.out
    assert f"weights: its outputs are not compared: its upstream {made}/r/encoder.py:Loud is code" in outcome.out
    outcome = type_command("verify", made / "r", "--trust", f"{made}/r/encoder.py:Loud")
    assert outcome.code == 0 and "not compared" not in outcome.out
    assert (made / "ran").exists()


def test_verify_compares_the_digest_of_code_that_it_does_not_run(made: Path) -> None:
    code = made / "r/encoder.py"
    before = code.read_text()
    code.write_text(f"{before}# changed\n")
    outcome = in_vain(made, "verify", made / "r")
    code.write_text(before)
    assert outcome.code == 2 and "encoder.py:Loud has changed: encoder.py" in outcome.out


def test_a_run_is_not_made_again_by_untrusted_code(made: Path) -> None:
    outcome = in_vain(made, "verify", made / "r", "--again", 1)
    assert outcome.code == 2 and "FAILED" in outcome.out and "--trust" in outcome.out


@pytest.mark.parametrize("command", ["table", "report", "export"])
def test_commands_that_need_no_code_run_none(command: str, made: Path, tmp_path: Path) -> None:
    options: dict[str, tuple[object, ...]] = {
        "report": ("--out", tmp_path / "report.html", "--audio-mb", 0),
        "export": ("--model-card", f"{made}/r/encoder.py:Loud"),
    }
    assert in_vain(made, command, made / "r", *options.get(command, ())).code == 0


def test_trust_in_code_is_none_in_what_a_record_has_it_load(made: Path, tmp_path: Path, tones: Path) -> None:
    """A stranger may name the person's own encoder, with a checkpoint that its code would unpickle."""
    shutil.copytree(made / "r", tmp_path / "r")
    path = run_of(tmp_path / "r") / records.NAME
    content = json.loads(path.read_text())
    content["upstream"]["address"] = f"{made}/r/encoder.py:Loud@{tmp_path}/r/evil.pt"
    path.write_text(json.dumps(content))
    outcome = in_vain(made, "predict", path.parent, tones, "--trust", made / "r/encoder.py")
    assert outcome.code == 2 and outcome.err.rstrip().endswith(f"add --trust {tmp_path}/r/evil.pt.")
