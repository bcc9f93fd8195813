"""An encoder whose helper, configuration or weights change is computed again; older results are still read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import superb_eval.runs.evaluate
from superb_eval.errors import UserError
from superb_eval.results import record as records
from superb_eval.results.folder import open_results
from superb_eval.results.verify import verify
from superb_eval.results.verify_checks import Scope
from superb_eval.runs import config as run_config
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate, evaluate_seeds
from superb_eval.runs.predict import load_trained
from upstreams import registry
from upstreams.loading import legacy_fingerprints

SHORT = ("train.steps=20", "train.eval_every=20", "train.batch_size=8", "train.lr=1e-2")

ENCODER = """
import json
from pathlib import Path
import torch
import helper

class Enc(torch.nn.Module):
    def __init__(self, ckpt):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.load(ckpt, weights_only=True))
        self.shift = json.loads((Path(__file__).parent / "cfg.json").read_text())["shift"]
    def forward(self, wavs):
        frames = torch.stack([helper.frames(wav) for wav in wavs])
        return {"hidden_states": [frames * self.scale + self.shift]}
"""
HELPER = "def frames(wav):\n    return wav.unfold(0, 320, 320).abs()\n"

EARLIER = Path(__file__).parent / "earlier_results"
"""A run of `fbank_nonorm` as it was recorded before identities were; without its head, which is large."""


@pytest.fixture
def config(tones: Path, tmp_path: Path) -> RunConfig:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "enc.py").write_text(ENCODER)
    (folder / "helper.py").write_text(HELPER)
    (folder / "cfg.json").write_text('{"shift": 0.0}')
    torch.save(torch.ones(1), tmp_path / "weights.pt")
    address = f"{folder}/enc.py:Enc@{tmp_path}/weights.pt"
    return RunConfig(address, "ks", tones, overrides=SHORT, out=tmp_path / "results")


def change_helper(root: Path) -> str:
    (root / "mine" / "helper.py").write_text(HELPER.replace("abs()", "exp()"))
    return "helper.py"


def change_configuration(root: Path) -> str:
    (root / "mine" / "cfg.json").write_text('{"shift": 0.5}')
    return "cfg.json"


def change_weights(root: Path) -> str:
    torch.save(torch.full((1,), 3.0), root / "weights.pt")
    return "its weights"


@pytest.mark.parametrize("change", [change_helper, change_configuration, change_weights])
@pytest.mark.parametrize("fresh", [False, True])
def test_changed_encoders_are_computed_again_and_named(config: RunConfig, tmp_path: Path, change, fresh: bool) -> None:  # type: ignore[no-untyped-def]
    first, folder = evaluate(config)
    trusted = (config.upstream,)
    assert verify(config.out, Scope(trusted=trusted)).findings == ()
    name = change(tmp_path)
    (finding,) = verify(config.out, Scope(trusted=trusted)).findings
    assert finding.check == "weights" and name in finding.message and not finding.remark
    with pytest.raises(UserError, match=rf"{name}.*changed\)\. Run it again with --fresh"):
        load_trained(folder, trusted=trusted)
    second, other = evaluate(replace(config, fresh=fresh))
    assert (second.features.extracted, second.features.stored) == (72, 0)
    assert folder != other
    assert first.upstream.fingerprint != second.upstream.fingerprint


def test_a_head_that_was_trained_on_another_processor_is_loaded(config: RunConfig) -> None:
    _, folder = evaluate(config)
    path = folder / records.NAME
    content = json.loads(path.read_text())
    content["upstream"]["identity"]["outputs"] = "0" * 64
    content["upstream"]["fingerprint"] = "1" * 64
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="another processor or library version may be why"):
        load_trained(folder, trusted=(config.upstream,))


OLD, NEW = "fbank_nonorm", registry.load("fbank_nonorm").fingerprint()


@pytest.fixture
def legacy(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """The configuration of a run whose record, head and store have the upstream's legacy fingerprint."""
    legacy_config = RunConfig(OLD, "ks", tones, overrides=SHORT, out=tmp_path / "results", store=tmp_path / "store")
    (fingerprint,) = legacy_fingerprints.legacy(NEW)
    with monkeypatch.context() as patch:
        patch.setattr(run_config.PreparedRun, "fingerprint", fingerprint)
        _, folder = evaluate(legacy_config)
    path = folder / records.NAME
    content = json.loads(path.read_text())
    assert content["upstream"]["fingerprint"] == fingerprint
    del content["upstream"]["identity"]
    path.write_text(json.dumps({**content, "schema_version": 2, "code": "0" * 64}))
    return legacy_config


def test_a_legacy_run_is_finished_and_verified(legacy: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {path: path.read_bytes() for path in legacy.out.rglob("*.*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(superb_eval.runs.evaluate, "_run", lambda *_: pytest.fail("it was repeated"))
        ((record, folder),) = evaluate_seeds(legacy, [0])
    assert record.upstream.fingerprint != NEW
    assert {path: path.read_bytes() for path in legacy.out.rglob("*.*") if path.is_file()} == content
    report = verify(legacy.out)
    assert {(finding.check, finding.remark) for finding in report.findings} == {("schema", True), ("code", True)}
    assert load_trained(folder).record == record


def test_a_legacy_store_is_read_and_fresh_repeats_the_run(legacy: RunConfig) -> None:
    record, folder = evaluate(replace(legacy, fresh=True))
    assert (record.features.extracted, record.features.stored) == (0, 72)
    assert record.upstream.fingerprint == NEW
    runs = open_results(legacy.out).runs
    assert [len({run.repeat_key for run in runs}), len(runs)] == [1, 2], "they are repetitions of one another"
    assert evaluate(legacy)[1] == folder


def test_further_seeds_join_a_legacy_run(legacy: RunConfig) -> None:
    runs = evaluate_seeds(replace(legacy, overrides=(*SHORT,)), [0, 1])
    assert [record.seed for record, _ in runs] == [0, 1]
    assert [record.upstream.fingerprint == NEW for record, _ in runs] == [False, True]
    assert runs[1][0].features.extracted == 0


def test_a_recorded_legacy_run_is_read(tmp_path: Path) -> None:
    shutil.copytree(EARLIER, tmp_path / "results")
    (run,) = open_results(tmp_path / "results").runs
    assert legacy_fingerprints.current(run.record.upstream.fingerprint) == registry.load("fbank_nonorm").fingerprint()
    wrong = [finding for finding in verify(tmp_path / "results", Scope(quick=True)).findings if not finding.remark]
    assert [finding.message for finding in wrong] == ["probe-1.safetensors is missing"]
