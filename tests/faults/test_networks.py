"""A short form of the campaign of hostile networks: each is opened, or refused with a sentence that names its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from superb_eval.errors import UserError
from tests.campaigns import networks


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "count"), [("folders", 30), ("settings", 40), ("checkpoints", 40)])
def test_hostile_networks(kind: str, count: int, tmp_path: Path) -> None:
    tally = networks.run(kind, count, tmp_path, seed=1, large=0.0)
    assert tally.counts.total() == count and set(tally.counts) <= {"accepted", "refused"}, tally.others


def test_a_refusal_that_names_no_file_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(address: str) -> object:
        raise UserError("something is wrong")

    monkeypatch.setattr("upstreams.registry.load", load)
    with pytest.raises(AssertionError, match="names no file: something is wrong"):
        networks.attempt(f"checkpoint:{tmp_path / 'x.pt'}", tmp_path / "x.pt")
