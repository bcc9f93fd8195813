from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from downstreams import registry as tasks
from downstreams.base import Setup, TrainedTask
from downstreams.batching.targets import Targets
from downstreams.nets.heads import UtteranceLevel
from superb_eval.features.dataset import FeatureBatch
from superb_eval.features.featurizer import Featurizer
from superb_eval.probing.batched_probes import BatchedProbes, MicroBatch, batch_probes
from superb_eval.probing.probe import Probe
from tests.probing.small_trainings import DIM, HEADS, small_split
from tests.rounding import assert_near_losses, assert_near_weights

RATES = (1e-1, 1e-2, 1e-3)
TARGETS = Targets.of([0, 1, 2, 0, 1])
KS = tasks.get("ks")


@pytest.fixture
def task():  # type: ignore[no-untyped-def]
    return KS(Setup(["a", "b", "c"], KS.Head(projector_dim=8)))


def probes(count: int = len(RATES)) -> list[Probe]:
    batch = []
    for k in range(count):
        torch.manual_seed(k)
        batch.append(Probe(Featurizer(4), UtteranceLevel(6, 8, 3)))
    return batch


def gradients(batched: BatchedProbes) -> Tensor:
    """Return the gradients of each probe in order of size [probes, weights]: layouts differ."""
    flat = [torch.cat([p.grad.flatten() for p in batched.parameters(k) if p.grad is not None]) for k in range(3)]
    return torch.stack(flat).sort().values


def trained(make_batched, task, precision: str = "float32", steps: int = 12) -> tuple[Tensor, Tensor, list[Probe]]:  # type: ignore[no-untyped-def]
    """Return the loss of each micro-batch [2 * steps, probes], the first clipped gradients, and the trained probes."""
    trained_probes, clipped = probes(), []
    batched = make_batched(trained_probes, task, precision)
    groups = [{"params": batched.parameters(k), "lr": lr} for k, lr in enumerate(RATES)]
    optimizer = torch.optim.Adam(groups, fused=True)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        for _ in range(2):
            batch = FeatureBatch(3 * torch.randn(5, 4, 6, generator=generator), torch.ones(5, dtype=torch.long))
            targets = torch.randint(3, (5,), generator=generator)
            losses.append(batched.backward(MicroBatch(batch, Targets.of(list(targets)), 0), 0.5))
        batched.clip(0.05)
        clipped.append(gradients(batched))
        optimizer.step()
        batched.zero_grad()
    return torch.stack(losses), clipped[0], trained_probes


def test_batched_probes_train_as_if_each_were_alone(task) -> None:  # type: ignore[no-untyped-def]
    """Against one probe after the other, with torch's own gradient clipping."""
    together, clipped, ours = trained(lambda *args: batch_probes(args[0], args[1], True, args[2]), task)
    alone, expected, theirs = trained(lambda *args: batch_probes(args[0], args[1], False, args[2]), task)
    assert together.shape == (24, 3)
    torch.testing.assert_close(clipped, expected, rtol=1e-4, atol=1e-7)
    for k in range(3):
        assert_near_losses(together[:, k].tolist(), alone[:, k].tolist(), rel=1e-5)
        assert_near_weights(ours[k].state_dict(), theirs[k].state_dict())
    assert not torch.allclose(together[-1][0], together[-1][2], rtol=1e-3), "the rates differ"


def test_batched_probes_in_16_bits_are_near(task) -> None:  # type: ignore[no-untyped-def]
    exact, *_ = trained(lambda *args: batch_probes(args[0], args[1], True, args[2]), task)
    rough, *_ = trained(lambda *args: batch_probes(args[0], args[1], True, args[2]), task, "bf16")
    assert exact.dtype == rough.dtype == torch.float32
    assert 0 < float((exact - rough).abs().max()) < 0.5


@pytest.mark.parametrize("name", [name for name in HEADS if tasks.get(name).pooled])  # type: ignore[attr-defined]
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("layers", "layer"), [(1, None), (3, None), (3, 1)])
def test_losses_at_once_have_the_bits_of_torchs(name: str, count: int, layers: int, layer: int | None) -> None:
    """What `torch.vmap` makes of a head and a loss, for any task; in updates too, where sums follow memory's order."""
    task, split = small_split(name, range(20, 37))
    ours, theirs = (_stacked(task, count, layers, layer) for _ in range(2))
    assert ours.head is not None
    theirs.head = None
    targets = Targets.of([task.target(utterance) for utterance in split.manifest])
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        batch = FeatureBatch(torch.randn(17, layers, DIM, generator=generator), torch.ones(17, dtype=torch.long))
        for probes in (ours, theirs):
            losses = probes.backward(MicroBatch(batch, targets, 0), 0.5)
            assert losses.shape == (count,)
        assert torch.equal(ours.clip(0.1), theirs.clip(0.1))
        for k in range(count):
            for one, other in zip(ours.parameters(k), theirs.parameters(k), strict=True):
                assert one.grad is not None and other.grad is not None and torch.equal(one.grad, other.grad)
        assert torch.equal(losses, ours.backward(MicroBatch(batch, targets, 0), 0.0))


def test_a_task_with_a_loss_of_its_own_is_trained_by_it() -> None:
    """It inherits from one whose loss takes several heads at once, and need not know of that."""

    class Smoothed(KS):  # type: ignore[valid-type,misc]
        def utterance_loss(self, output: Tensor, targets: Targets) -> Tensor:
            return nn.functional.cross_entropy(output, targets.values, label_smoothing=0.2)

    task = Smoothed(Setup(["a", "b", "c"], KS.Head(projector_dim=8)))
    together = probes()
    batch = MicroBatch(FeatureBatch(torch.randn(5, 4, 6), torch.ones(5, dtype=torch.long)), TARGETS, 0)
    alone = [task.utterance_loss(probe(batch.batch.hidden, batch.batch.lengths), TARGETS) for probe in together]
    losses = batch_probes(together, task, pooled=True).backward(batch, 1.0)
    assert losses.tolist() == pytest.approx([loss.item() for loss in alone], rel=1e-5)


def _stacked(task: TrainedTask, count: int, layers: int, layer: int | None) -> Any:
    stacked = []
    for k in range(count):
        torch.manual_seed(k)
        stacked.append(Probe(Featurizer(layers, layer), task.head(DIM)))
    return batch_probes(stacked, task, pooled=True)


def test_sequential_probes_draw_the_same_dropout(task) -> None:  # type: ignore[no-untyped-def]
    """So that a learning rate of a sweep has the results that it has alone, dropout included."""

    class Dropping(UtteranceLevel):
        def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
            return super().forward(nn.functional.dropout(features, 0.5, self.training), lengths)

    torch.manual_seed(0)
    one = Probe(Featurizer(4), Dropping(6, 8, 3))
    two = Probe(Featurizer(4), Dropping(6, 8, 3))
    two.load_state_dict(one.state_dict())
    batched = batch_probes([one, two], task, pooled=False)
    losses = batched.backward(
        MicroBatch(FeatureBatch(torch.randn(5, 4, 6), torch.ones(5, dtype=torch.long)), TARGETS, seed=7), 1.0
    )
    assert losses[0] == losses[1]
    other = batched.backward(
        MicroBatch(FeatureBatch(torch.randn(5, 4, 6), torch.ones(5, dtype=torch.long)), TARGETS, seed=8), 1.0
    )
    assert other[0] != losses[0]


def test_weights_of_batched_probes_are_saved_and_loaded(task, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from superb_eval.probing.probe import load_weights, save_weights

    trained_probes = probes()
    batch_probes(trained_probes, task, True)
    for k, probe in enumerate(trained_probes):
        save_weights(tmp_path / f"{k}.safetensors", probe)
    fresh = Probe(Featurizer(4), UtteranceLevel(6, 8, 3))
    load_weights(tmp_path / "1.safetensors", fresh)
    for name, tensor in probes()[1].state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor)
