"""What several tests of features share: a small network with random weights, and some clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from superb_eval.data.audio import Clip
from upstreams import registry
from upstreams.base import Upstream


@pytest.fixture(scope="module")
def upstream() -> Upstream:
    return registry.load("hubert_nano@random")


@pytest.fixture(scope="module")
def clips(tones: Path) -> list[Clip]:
    return [Clip(path) for path in sorted((tones / "audio" / "test").glob("*.flac"))]
