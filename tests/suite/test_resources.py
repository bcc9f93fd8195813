"""The resources that runs need of a cluster, and the passes that they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from superb_eval.errors import UserError
from superb_eval.suite import jobs, resources
from superb_eval.suite.jobs import SuiteConfig


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpus=2", "Did you mean 'cpu'"),
        ("cpu=0", "expected a number"),
        ("gpu=x", "expected a number"),
        ("cpu", "expec"),
    ],
)
def test_resources_are_parsed_and_errors_explained(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resources.parse(text, "cpu")
    assert resources.parse("", "cuda") == resources.Resources(1, 1.0, 0.0)
    assert resources.parse("cpu=2, gpu=0.5,memory_gb=8", "cuda") == resources.Resources(2, 0.5, 8.0)


def test_seeds_and_head_settings_share_a_pass(tmp_path: Path) -> None:
    planned = jobs.expand(
        SuiteConfig(("a", "b"), ("ks", "ic"), tmp_path, "nano", ("train.lr=1",), seeds=(0, 1, 2), out=tmp_path)
    )
    shared = resources.shared_passes(planned)
    assert len(shared) == 4 and all(len(sharing) == 3 for sharing in shared.values())
