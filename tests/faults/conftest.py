"""Fixtures of fault tests: a short run on a small corpus, and the same run without a fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from superb_eval.results.record import RunRecord
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate

SHORT = ("train.steps=20", "train.eval_every=5", "train.batch_size=8", "train.lr=1e-2")


@pytest.fixture
def config(tones: Path, tmp_path: Path) -> RunConfig:
    """A run of a second."""
    return RunConfig("fbank_nonorm", "ks", tones, overrides=SHORT, out=tmp_path / "results", store=tmp_path / "store")


@pytest.fixture(scope="session")
def unbroken(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecord, Path]:
    """The record and the folder of the same run without a fault."""
    folder = tmp_path_factory.mktemp("unbroken")
    return evaluate(RunConfig("fbank_nonorm", "ks", tones, overrides=SHORT, out=folder / "r", store=folder / "s"))


Same = Callable[[RunRecord, Path], None]


@pytest.fixture
def same(unbroken: tuple[RunRecord, Path]) -> Same:
    """Compare a run with the unbroken one: figures, curves, predictions and heads, to the bit."""

    def check(record: RunRecord, folder: Path) -> None:
        expected, expected_folder = unbroken
        assert record.metrics == expected.metrics
        for one, other in zip(record.training, expected.training, strict=True):
            assert [rate.curve for rate in one.rates] == [rate.curve for rate in other.rates]
        for name in ("predictions.csv", "probe-1.safetensors", "labels.json"):
            assert (folder / name).read_bytes() == (expected_folder / name).read_bytes(), name
        assert not list(folder.rglob("*.tmp"))

    return check
