"""An upstream typed in two ways is one folder of results, one record, and one row of a table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from superb_eval.cli.distillation import cost
from superb_eval.results.folder import open_results, slug
from superb_eval.results.upstream_address import resolve_address
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.suite import jobs
from superb_eval.suite.jobs import SuiteConfig
from upstreams import registry
from upstreams.hubert import Hubert

SHORT = ("train.steps=4", "train.eval_every=4", "train.lr=1e-2")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    Path("model/config.json").write_text('{"model_type": "hubert"}')
    Path("w.pt").write_bytes(b"")
    return tmp_path


def record_of(address: str, out: Path) -> None:
    """Write what an earlier run left: the folder of an address, and its record."""
    folder = out / slug(address) / "ks/mini-seed0-0123456789"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"upstream": {"address": address}}))


def test_a_new_results_folder_takes_the_canonical_address(here: Path) -> None:
    for typed in ("model", "./model/", "hf:model", "hf:./model"):
        assert resolve_address(typed, here / "out") == "hf:model"
    assert resolve_address(str(here / "model"), here / "out") == f"hf:{here}/model"


@pytest.mark.parametrize("recorded", ["hf:./model/", "hf:{here}/model", "hf:model"])
@pytest.mark.parametrize("typed", ["model", "./model", "hf:./model/", "{here}/model", "hf:{here}/model/"])
def test_results_of_before_keep_their_address(recorded: str, typed: str, here: Path) -> None:
    recorded, typed = recorded.format(here=here), typed.format(here=here)
    record_of("fbank", here / "out")
    record_of(recorded, here / "out")
    assert resolve_address(typed, here / "out") == recorded


def test_other_files_and_damaged_records_are_no_match(here: Path) -> None:
    record_of("hf:other", here / "out")
    record_of("checkpoint:w.pt", here / "out")
    for content in ("{", "[]", '{"upstream": {}}'):
        next((here / "out").glob("hf*/*/*/result.json")).write_text(content)
        assert resolve_address("./model", here / "out") == "hf:model"
    assert resolve_address(str(here / "w.pt"), here / "out") == "checkpoint:w.pt"


def test_a_suite_has_one_run_for_two_spellings(here: Path) -> None:
    config = SuiteConfig(("model", "./model", "hf:model", "nowhere.pt"), ("ks",), Path("x"), "mini", out=here / "out")
    assert [job.upstream for job in jobs.expand(config)] == ["hf:model", "nowhere.pt"]


def test_the_same_folder_typed_in_three_ways_runs_once(here: Path, tones: Path) -> None:
    nano = registry.load("hubert_nano@random")
    assert isinstance(nano, Hubert)
    nano.model.save_pretrained(here / "nano")
    config = RunConfig("nano", "ks", tones, overrides=SHORT, out=here / "out", store=here / "store")
    records = [evaluate(replace(config, upstream=typed)) for typed in ("./nano/", "hf:nano", str(here / "nano"))]
    assert len({folder for _, folder in records}) == 1
    assert {record.upstream.address for record, _ in records} == {"hf:nano"}
    assert len(open_results(here / "out").runs) == 1
    cost(["./nano"], seconds=0.2, rounds=3, out=here / "out")
    assert list(json.loads((here / "out/cost.json").read_text())) == ["hf:nano"]
