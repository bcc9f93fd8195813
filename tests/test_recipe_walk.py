"""Every shipped recipe is run: a few steps, a falling loss, a valid record. One that is not run fails the walk."""

from __future__ import annotations

from pathlib import Path

import pytest

from superb_eval import recipe
from superb_eval.results.record import RunRecord
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from tests.ten_tasks import SMALL


def _overrides(name: str) -> tuple[str, ...]:
    loaded = recipe.load(recipe.find(name, "mini"))
    if loaded.train is None:
        return SMALL[loaded.task]
    few = (
        "train.steps=16",
        "train.eval_every=4",
        f"train.batch_size={min(4, loaded.train.batch_size)}",
        "train.lr=1e-2",
    )
    return (*few, *SMALL[loaded.task])


@pytest.mark.parametrize("name", recipe.shipped())
def test_every_recipe_runs(name: str, ten_tasks: Path, tmp_path: Path) -> None:
    record, folder = evaluate(RunConfig("fbank_nonorm", name, ten_tasks, overrides=_overrides(name), out=tmp_path))
    assert RunRecord.model_validate_json((folder / "result.json").read_text()) == record
    assert f"recipes/{record.profile}/{record.task}.yaml" == name
    assert all(metric.low <= metric.value <= metric.high for metric in record.metrics)
    for training in record.training:
        for rate in training.rates:
            assert rate.curve[-1]["loss"] < rate.curve[0]["loss"]


def test_the_walk_knows_every_task() -> None:
    from downstreams import registry

    assert sorted(SMALL) == registry.names()
    assert {Path(name).stem for name in recipe.shipped()} == set(SMALL)
