"""An update reads nothing from the device: it runs on the meta device, which has no values to read."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from superb_eval.pretraining import network, shapes, trainer
from superb_eval.pretraining.batches import Batch
from superb_eval.pretraining.distillation import Distillation
from superb_eval.pretraining.frontend_warmup import Regression
from superb_eval.pretraining.masked import MaskedPrediction
from superb_eval.pretraining.objective import NotFiniteError, Objective, PendingStep
from superb_eval.pretraining.recipe import (
    DistillationSettings,
    MaskSettings,
    OptimSettings,
    PredictSettings,
    PretrainRecipe,
    StudentSettings,
    TeacherSettings,
)
from superb_eval.pretraining.student import build_student
from superb_eval.pretraining.targets import Labels
from superb_eval.pretraining.trainer import Hooks, _Trainer
from upstreams import registry

LENGTHS = (9_000, 16_000, 12_000)

META = SimpleNamespace(
    device=torch.device("meta"),
    world_size=1,
    global_rank=0,
    is_global_zero=True,
    no_backward_sync=lambda module, enabled: nullcontext(),
    backward=lambda loss: loss.backward(),
    clip_gradients=lambda module, optimizer, max_norm, error_if_nonfinite: torch.nn.utils.clip_grad_norm_(
        module.parameters(), max_norm, error_if_nonfinite=error_if_nonfinite
    ),
)


def batches(objective: Objective) -> Generator[Batch, None, None]:
    while True:
        yield objective.prepare(Batch(torch.randn(3, max(LENGTHS)), LENGTHS, (0, 1, 2), (0, 0, 0), (4, 5, 6), 1))


def prediction(toy: Callable[..., PretrainRecipe]) -> Objective:
    counts = [shapes.frame_count(length) for length in LENGTHS]
    labels = Labels(np.zeros(sum(counts), dtype=np.uint16), np.array([0, *np.cumsum(counts)]), 7)
    model = network.create(toy("network.layers=2", "network.dropout=0.1").network, 0)
    return MaskedPrediction(model, labels, MaskSettings(length=6), PredictSettings(width=5), steps=9)


def regression(toy: Callable[..., PretrainRecipe]) -> Objective:
    return Regression(network.create(toy().network, 0), 20)


def distillation(toy: Callable[..., PretrainRecipe]) -> Objective:
    teacher = registry.load("hubert_nano@random")
    student = build_student(StudentSettings(layers=1), teacher, 2)
    return Distillation(student, teacher, DistillationSettings(layers=(1, 2)), TeacherSettings())


@pytest.mark.parametrize("make", [prediction, regression, distillation])
def test_an_update_waits_for_nothing(
    make: Callable[..., Objective], toy: Callable[..., PretrainRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is no autocast on this device.
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *args: False)
    # Nor a fused optimiser; torch's default implementation is equivalent.
    plain = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, fused, **kwargs: plain(groups, **kwargs))
    # transformers itself reads once per pass whether a mask masks anything.
    monkeypatch.setattr("transformers.masking_utils._ignore_bidirectional_mask_sdpa", lambda *args: False)
    settings = OptimSettings(steps=9, accumulate=2)
    objective = make(toy).to("meta").train()
    loop = _Trainer(objective, None, settings, tmp_path, META, 0, Hooks(), ())  # type: ignore[arg-type]
    pending = loop._update(
        objective, trainer.create_optimizer(objective, settings), batches(objective), stop=False, save=True
    )
    assert pending.losses.device.type == "meta" and pending.losses.shape == (2, len(pending.weights) + 3)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        pending.read()


def pending_step(losses: list[list[float]], norm: float = 1.0) -> PendingStep:
    clips = tuple((10 * k, 10 * k + 1) for k in range(len(losses)))
    return PendingStep(3, {"a": 2.0, "b": 0.0}, torch.tensor(losses), torch.tensor(norm), clips)


def test_micro_batches_are_averaged_and_their_seconds_added() -> None:
    statistics = pending_step([[1.0, 5.0, 10.0, 0.0, 0.0], [3.0, 7.0, 11.0, 0.0, 1.0]]).read()
    assert statistics.values == {"loss": 4.0, "a": 2.0, "b": 6.0, "gradient": 1.0}
    assert (statistics.seconds, statistics.stop, statistics.save) == (21.0, False, True)


@pytest.mark.parametrize(
    ("values", "message", "clips"),
    [
        ({"losses": [[1.0, 1, 1, 0, 0], [float("nan"), 1, 1, 0, 0]]}, "the loss is nan", (10, 11)),
        ({"losses": [[1.0, 1, 1, 0, 0]], "norm": float("inf")}, "the gradient's norm is inf", (0, 1)),
    ],
)
def test_values_that_are_not_finite_name_their_clips(
    values: dict[str, Any], message: str, clips: tuple[int, ...]
) -> None:
    with pytest.raises(NotFiniteError, match=message) as caught:
        pending_step(**values).read()
    assert caught.value.clips == clips
