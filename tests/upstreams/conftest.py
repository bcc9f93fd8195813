"""Fixtures shared by the tests of upstreams."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from upstreams import registry
from upstreams.base import Upstream


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may reach for a network, or wait for one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def noise() -> Callable[..., Tensor]:
    """Return a seeded waveform [samples]."""

    def make(samples: int, seed: int = 0) -> Tensor:
        return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture
def nano() -> Upstream:
    return registry.load("hubert_nano@random")


class MaliciousPickle:
    """Unpickling it makes a folder: proof that a loader ran code from a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.proof),)


@pytest.fixture
def malicious_object(tmp_path: Path) -> tuple[object, Path]:
    """Return something that runs code when unpickled, and the path that this creates."""
    return MaliciousPickle(tmp_path / "it-ran"), tmp_path / "it-ran"


@pytest.fixture
def malicious(tmp_path: Path, malicious_object: tuple[object, Path]) -> tuple[Path, Path]:
    """Return a checkpoint that runs code when unpickled, and the path that this creates."""
    torch.save({"weight": torch.zeros(3), "more": malicious_object[0]}, tmp_path / "malicious.pt")
    return tmp_path / "malicious.pt", malicious_object[1]
