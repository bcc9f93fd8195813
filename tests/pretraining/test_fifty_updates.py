"""Losses are those of the code before it, batch by batch, and the shapes that a GPU gets change none of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from superb_eval.pretraining.batches import Batches
from tests.pretraining import fifty_updates
from upstreams.loading import conv_frontend

PINNED: dict[str, list[float]] = json.loads(Path(fifty_updates.__file__).with_suffix(".json").read_text())


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("name", PINNED)
def test_losses_are_pinned(name: str, grid: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if grid:
        monkeypatch.setattr(conv_frontend, "ONE_BY_ONE", frozenset())
    batches = Batches(fifty_updates.audio(), fifty_updates.DATA, 0, grid=grid)
    assert fifty_updates.losses(name, tmp_path, batches) == pytest.approx(PINNED[name], rel=1e-5)
