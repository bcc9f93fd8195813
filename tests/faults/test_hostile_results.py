"""A short form of the campaign of records: results folders of strangers end in a sentence, or in the right result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from downstreams.base import Prediction
from tests.campaigns import records
from tests.campaigns.commands import TypedCommand, type_command
from tests.results.runs import new_record, write_run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    records.prepare(folder)
    return folder


@pytest.fixture
def campaign(root: Path) -> records.Campaign:
    return records.Campaign(root)


@pytest.mark.filterwarnings("ignore")
def test_hostile_records_and_folders(campaign: records.Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    for dear in ("onnx", "report", "verify --again"):
        monkeypatch.delitem(records.COMMANDS, dear)
    records.fuzz_records(campaign, 10, seed=1)
    records.fuzz_folders(campaign, 8, seed=1)
    assert campaign.faults == {} and campaign.counts["done"] > 10 and campaign.counts["refused"] > 3


def test_the_campaign_counts_what_must_not_occur(campaign: records.Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    def hostile(*words: object) -> TypedCommand:
        (campaign.root / "ran").touch()
        (campaign.results / "new").touch()
        return TypedCommand(1, "\x1b[2J", "Traceback\nKeyError: 'x'")

    monkeypatch.setattr(records, "type_command", hostile)
    records.fuzz_records(campaign, 1)
    kinds = " ".join(campaign.faults)
    for words in ("table: KeyError", "a file changed", "code ran", "an escape was printed", "no table of the other"):
        assert words in kinds


def test_features_that_the_upstream_lacks_are_named(root: Path, tmp_path: Path) -> None:
    run = shutil.copytree(next(root.glob("base/results/other/ks/*")), tmp_path / "run")
    content = json.loads((run / "result.json").read_text())
    content["recipe"]["features"]["key"] = "sd"
    (run / "result.json").write_text(json.dumps(content))
    outcome = type_command("predict", run, root / "clip.flac")
    assert outcome.refused and "features.key: its upstream has no 'sd', but hidden_states" in outcome.err


def test_predictions_of_one_utterance_are_refused_with_the_reason(tmp_path: Path) -> None:
    rows = [Prediction(f"u{k}", "A B", "A C" if k % 2 else "A B") for k in range(20)]
    run = write_run(tmp_path / "r", new_record("fbank", "pr"), rows)
    (run / "predictions.csv").write_text("id,truth,answer,fold,speaker\n" + "u,a,b,1,s\n" * 50)
    outcome = type_command("verify", tmp_path / "r", "--quick")
    assert outcome.refused and "PER (strict) has no interval: 50 test units are too few" in outcome.out
