"""A record to vary."""

from __future__ import annotations

from pathlib import Path

import pytest

from superb_eval.results import record as records
from superb_eval.results.record import RunRecord
from tests.results.runs import new_record, ten_tasks


@pytest.fixture
def a_record() -> RunRecord:
    metric = records.MetricRecord(
        key="acc",
        heading="ACC",
        unit="%",
        higher_is_better=True,
        value=43.99,
        low=38.8,
        high=49.18,
        level=0.95,
        method="bootstrap",
        units=366,
        protocol="strict",
    )
    return new_record("fbank", "ks").model_copy(update={"metrics": [metric], "chance": 23.5})


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two upstreams on all ten tasks, as if on the official corpora; read it, don't change it."""
    folder = tmp_path_factory.mktemp("complete")
    for name, errs, seed in (("hubert", 0.1, 1), ("distilhubert", 0.25, 2)):
        ten_tasks(folder, name, errs, seed, profile="superb", corpus__official=True)
    return folder
