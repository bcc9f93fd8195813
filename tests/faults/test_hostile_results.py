"""A short form of the campaign of records: results folders of strangers end in a sentence, or in the right result."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns import records
from tests.campaigns.commands import TypedCommand


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
