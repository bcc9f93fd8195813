"""An update of each task's head: its losses, its operations, and that it never waits for a device."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from superb_eval.probing.batched_probes import MicroBatch
from superb_eval.probing.training import Drawn, Training
from tests.probing.small_trainings import HEADS, small_training
from tests.rounding import assert_near_losses

RECORDED = Path(__file__).with_name("losses.json")
UPDATES = 20
FRAMES = (31, 64, 40, 12, 57, 33, 22, 49, 60, 18, 35, 9)


def drawn_steps(training: Training, steps: int) -> Iterator[list[Drawn]]:
    """The micro-batches of the next steps."""
    micro_batches = training.micro_batches(1)
    for _ in range(steps):
        yield [next(micro_batches) for _ in range(training.settings.accumulate)]
    micro_batches.close()


@pytest.mark.parametrize("task", HEADS)
def test_losses_are_those_recorded(task: str, tmp_path: Path) -> None:
    """`RECORD_LOSSES=1 pytest tests/probing/test_updates.py` adds those of a new task, and changes none."""
    training = small_training(task, FRAMES, 5, tmp_path)
    for drawn in drawn_steps(training, UPDATES):
        training.train_step(drawn)
    found = torch.stack(training.active.losses).T.tolist()
    recorded = json.loads(RECORDED.read_text())
    if os.environ.get("RECORD_LOSSES") and task not in recorded:
        RECORDED.write_text(json.dumps({**recorded, task: found}) + "\n")
        return
    for ours, expected in zip(found, recorded[task], strict=True):
        assert_near_losses(ours, expected, rel=1e-6)


class CountedOperations(TorchDispatchMode):
    """Counts the operations that are dispatched: on a GPU each is a launch, or a view."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def frames_of(utterances: int, total: int = 1920) -> list[int]:
    """Different lengths, which sum to `total` frames."""
    mean = total // utterances
    return [mean + (-1) ** k * (1 + k // 2 % (mean // 4)) for k in range(utterances)]


@pytest.mark.parametrize("task", HEADS)
def test_an_update_has_as_many_operations_for_any_number_of_utterances(task: str, tmp_path: Path) -> None:
    counts = []
    for utterances in (8, 64):
        training = small_training(task, frames_of(utterances), utterances, tmp_path)
        first, second = drawn_steps(training, 2)
        training.train_step(first)  # makes the optimizer's moments
        with CountedOperations() as operations:
            training.train_step(second)
        counts.append(operations.counts)
    assert counts[0] == counts[1]
    assert 100 < sum(counts[0].values()) < 1500


def meta_ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, **_: Any
) -> Tensor:
    """Read lengths as torch's does, which has no version for the meta device: so they are on the host."""
    assert (log_probs.device.type, targets.device.type) == ("meta", "meta")
    assert int(input_lengths.max()) <= len(log_probs) and int(target_lengths.max()) == targets.shape[1]
    return log_probs.mean()


@pytest.mark.parametrize("task", HEADS)
def test_an_update_reads_nothing_from_the_device(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's meta device, where tensors have no values to read: all but the optimizer, which isn't made for it."""
    monkeypatch.setattr(torch.nn.functional, "ctc_loss", meta_ctc_loss)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # nor is this
    training = small_training(task, (15, 12, 16, 4), 4, tmp_path, device="meta")
    for batch, targets in next(drawn_steps(training, 1)):
        assert batch.lengths.device.type == targets.lengths.device.type == "cpu"
        micro_batch = MicroBatch(batch.to(training.device), targets.to(training.device), seed=0)
        losses = training.active.probes.backward(micro_batch, 0.5)
        assert losses.shape == (2,) and losses.device.type == "meta"
    assert training.active.probes.clip(1.0).shape == (2,)


@pytest.mark.parametrize("task", ["ks", "asr", "sd", "asv"])
def test_updates_in_16_bits_are_near(task: str, tmp_path: Path) -> None:
    losses = [_losses(small_training(task, FRAMES, 5, tmp_path, precision=name), 3) for name in ("float32", "bf16")]
    assert losses[0] != losses[1]
    for exact, rough in zip(*losses, strict=True):
        assert rough == pytest.approx(exact, rel=0.05)


def _losses(training: Training, steps: int) -> Sequence[list[float]]:
    for drawn in drawn_steps(training, steps):
        training.train_step(drawn)
    return [step.tolist() for step in training.active.losses]
