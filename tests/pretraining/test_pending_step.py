"""An update reads nothing from the device, and has no operation per clip.

It runs on the meta device, which has no values to read, and as on a GPU on the CPU, with its operations counted.
"""

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
from tests.operations import Operations
from upstreams import registry
from upstreams.loading import conv_frontend
from upstreams.loading.positional_conv import PositionalConv

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


def prediction(toy: Callable[..., PretrainRecipe], *overrides: str) -> Objective:
    counts = [shapes.frame_count(length) for length in LENGTHS]
    labels = Labels(np.zeros(sum(counts), dtype=np.uint16), np.array([0, *np.cumsum(counts)]), 7)
    model = network.create(toy("network.layers=2", "network.dropout=0.1", *overrides).network, 0)
    return MaskedPrediction(model, labels, MaskSettings(length=6), PredictSettings(width=5), steps=9)


def normalised(toy: Callable[..., PretrainRecipe]) -> Objective:
    """A prediction whose network reads normalised waveforms."""
    return prediction(toy, "network.more={num_conv_pos_embedding_groups: 4, feat_extract_norm: layer}")


def regression(toy: Callable[..., PretrainRecipe]) -> Objective:
    return Regression(network.create(toy().network, 0), 20)


def distillation(toy: Callable[..., PretrainRecipe]) -> Objective:
    teacher = registry.load("hubert_nano@random")
    student = build_student(StudentSettings(layers=1), teacher, 2)
    return Distillation(student, teacher, DistillationSettings(layers=(1, 2)), TeacherSettings())


@pytest.mark.parametrize("make", [prediction, normalised, regression, distillation])
def test_an_update_waits_for_nothing(
    make: Callable[..., Objective], toy: Callable[..., PretrainRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is no autocast on this device.
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *args: False)
    # Nor a fused optimiser; torch's default implementation is equivalent.
    plain = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, fused, **kwargs: plain(groups, **kwargs))
    settings = OptimSettings(steps=9, accumulate=2)
    objective = make(toy).to("meta").train()
    loop = _Trainer(objective, None, settings, tmp_path, META, 0, Hooks(), ())  # type: ignore[arg-type]
    pending = loop._update(
        objective, trainer.create_optimizer(objective, settings), batches(objective), stop=False, save=True
    )
    assert pending.losses.device.type == "meta" and pending.losses.shape == (2, len(pending.weights) + 3)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        pending.read()


def of_noise(clips: int, empty_rows: int = 0) -> Batch:
    """Clips of different lengths, 10 s in sum, and some rows after them."""
    lengths = tuple(160_000 // clips * (3 + k % 3) // 4 for k in range(clips))
    wavs = torch.zeros(clips + empty_rows, max(lengths), dtype=torch.int16)
    for row, length in zip(wavs, lengths, strict=False):
        row[:length] = torch.randint(-3_000, 3_000, (length,))
    return Batch(wavs, lengths, tuple(range(clips)), (0,) * clips, tuple(range(clips)), 1)


def labels(clips: int) -> Labels:
    frames = 160_000 // 320
    return Labels(np.zeros(clips * frames, dtype=np.uint16), np.arange(clips) * frames, 7)


@pytest.mark.parametrize("empty_rows", [0, 2])
@pytest.mark.parametrize("make", [prediction, normalised, regression, distillation])
def test_an_update_has_as_many_operations_with_any_number_of_clips(
    make: Callable[..., Objective],
    empty_rows: int,
    toy: Callable[..., PretrainRecipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conv_frontend, "ONE_BY_ONE", frozenset())
    monkeypatch.setattr(PositionalConv, "by_spectra", False)
    settings, counts = OptimSettings(steps=9), []
    objective = make(toy).train()
    optimizer = trainer.create_optimizer(objective, settings)
    fabric = SimpleNamespace(**{**vars(META), "device": torch.device("cpu")})
    loop = _Trainer(objective, None, settings, tmp_path, fabric, 0, Hooks(), ())  # type: ignore[arg-type]
    for clips in (8, 8, 64):  # the first update makes the optimiser's moments
        if isinstance(objective, MaskedPrediction):
            objective.labels = labels(clips)
        batch = objective.prepare(of_noise(clips, empty_rows))
        with Operations() as operations:
            pending = loop._update(objective, optimizer, iter([batch]), stop=False, save=False)  # type: ignore[arg-type]
        assert torch.isfinite(pending.losses).all() and torch.isfinite(pending.norm)
        counts.append(operations.count)
    assert counts[1] == counts[2]


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
