"""Updates that are not finite are skipped, and a learning rate that diverges is left out of its sweep."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from downstreams.base import Setup, TrainedTask
from downstreams.batching.targets import Targets
from downstreams.task_types.classification import Classification
from superb_eval.features.dataset import FeatureBatch
from superb_eval.probing.active_probes import ActiveProbes
from superb_eval.probing.batched_probes import BatchedProbes, MicroBatch
from superb_eval.probing.probe_state import ProbeState
from superb_eval.probing.training import Training
from superb_eval.recipe import TrainSettings
from superb_eval.results.record import RateRecord, RunRecord
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from tests.probing.test_batched_probes import KS, probes

SHORT = ("train.steps=60", "train.eval_every=20", "train.batch_size=8")

SWEPT, ALONE = "train.lr={sweep: [1.0e+30, 2.0e-3]}", "train.lr=2.0e-3"


@pytest.fixture
def config(tones: Path, tmp_path: Path) -> RunConfig:
    return RunConfig("fbank_nonorm", "ks", tones, overrides=(*SHORT, SWEPT), out=tmp_path / "results")


def rates_of(record: RunRecord) -> dict[float, RateRecord]:
    return {rate.lr: rate for training in record.training for rate in training.rates}


@pytest.mark.parametrize("pooled", ["true", "false"])
def test_a_diverging_rate_leaves_the_others_as_they_are(pooled: str, config: RunConfig, tmp_path: Path) -> None:
    frames = f"features.pooled={pooled}"
    with pytest.warns(UserWarning, match=r"learning rate 1e\+30 diverged.*the other rates are trained on"):
        record, folder = evaluate(replace(config, overrides=(*SHORT, SWEPT, frames)))
    alone, expected = evaluate(replace(config, overrides=(*SHORT, ALONE, frames), out=tmp_path / "alone"))
    swept, rates = rates_of(record), rates_of(alone)
    diverged = swept.pop(1e30)
    assert diverged.diverged_at == 20 and diverged.curve == []
    assert diverged.skipped >= 10
    assert record.metrics == alone.metrics and record.training[0].lr == alone.training[0].lr
    assert any("1e+30 diverged" in sentence for sentence in record.warnings)
    assert not any("diverged" in sentence for sentence in alone.warnings)
    assert swept == rates and swept[2e-3].diverged_at is None and not swept[2e-3].skipped
    for name in ("predictions.csv", "probe-1.safetensors"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()


def test_a_diverged_rate_costs_no_more_passes(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    backward = BatchedProbes.loss

    def counting(probes: BatchedProbes, *args: Any) -> torch.Tensor:
        passes.append(len(probes.probes))
        return backward(probes, *args)

    monkeypatch.setattr(BatchedProbes, "loss", counting)
    with pytest.warns(UserWarning, match="diverged"):
        record, _ = evaluate(replace(config, overrides=(*SHORT, SWEPT, "features.pooled=false")))
    step = rates_of(record)[1e30].diverged_at
    assert step is not None
    assert passes == [2] * 2 * step + [1] * (60 - step)


@pytest.mark.parametrize("pooled", ["true", "false"])
@pytest.mark.filterwarnings("ignore:learning rate")
def test_a_sweep_with_a_diverging_rate_resumes_with_the_same_bits(
    pooled: str, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, overrides=(*SHORT, SWEPT, f"features.pooled={pooled}"))
    update = Training._update

    def interrupted(training: Training, *args: Any) -> None:
        if training.step == 31:
            raise KeyboardInterrupt
        update(training, *args)

    uninterrupted, expected = evaluate(replace(config, out=tmp_path / "uninterrupted"))
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config)
    resumed, folder = evaluate(config)
    for lr, rate in rates_of(resumed).items():
        assert rate.resumed_at == ([] if lr == 1e30 else [20])
        assert rate.model_copy(update={"resumed_at": []}) == rates_of(uninterrupted)[lr]
    assert resumed.metrics == uninterrupted.metrics
    for name in ("predictions.csv", "probe-1.safetensors"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()


def poisoned(loss: Callable[..., Any], at: int) -> Callable[..., Any]:
    """A loss whose gradient is not finite at one call."""
    calls: list[int] = []

    def poison(task: TrainedTask, *inputs: Any) -> Any:
        calls.append(1)
        return loss(task, *inputs) * (float("nan") if len(calls) == at else 1.0)

    return poison


def test_an_update_that_is_not_finite_is_skipped_and_counted(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Classification, "loss", poisoned(Classification.loss, at=13))
        record, _ = evaluate(replace(config, overrides=(*SHORT, "train.lr=2e-3")))
    (rate,) = rates_of(record).values()
    assert (rate.skipped, rate.diverged_at, len(rate.curve)) == (1, None, 3)
    assert all(point["loss"] > 0 for point in rate.curve)
    assert any("1 of 60 updates" in sentence for sentence in record.warnings)


@pytest.mark.parametrize("pooled", [True, False])
def test_a_skipped_update_changes_neither_weights_nor_moments(pooled: bool, tmp_path: Path) -> None:
    task = KS(Setup(["a", "b", "c"], KS.Head(projector_dim=8)))
    states = [ProbeState(1e-2, probe, tmp_path) for probe in probes(2)]
    active = ActiveProbes(states, task, TrainSettings(steps=9, eval_every=3), pooled)
    batch = FeatureBatch(torch.randn(5, 4, 6), torch.ones(5, dtype=torch.long))

    def update(step: int, losses: list[float]) -> None:
        active.probes.backward(MicroBatch(batch, Targets.of([0, 1, 2, 0, 1]), 0), 1.0)
        active.update(step, torch.tensor(losses))

    def snapshot() -> list[dict[str, Any]]:
        return copy.deepcopy(
            [
                {**s.probe.state_dict(), "adam": o.state_dict()["state"]}
                for s, o in zip(states, active.optimizers, strict=True)
            ]
        )

    update(1, [1.0, 1.0])
    before = snapshot()
    update(2, [float("nan"), 1.0])
    after = snapshot()
    assert str(after[0]) == str(before[0])
    assert str(after[1]) != str(before[1])
    assert active.close_window() == [1.0, 1.0]
    assert [state.state.skipped for state in states] == [1, 0]
