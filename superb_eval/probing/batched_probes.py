"""Several probes that train together on the same batches, one for each learning rate, with identical results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from downstreams.base import TrainedTask, UtteranceTask
from downstreams.batching.targets import Targets
from downstreams.nets.heads import UtteranceLevel
from superb_eval.features.dataset import FeatureBatch
from superb_eval.probing.probe import Probe


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch: its features, its utterances' targets, and the seed of dropout and masks."""

    batch: FeatureBatch
    targets: Targets
    seed: int


class BatchedProbes(ABC):
    """Probes that process every batch together. Their gradients add up until `zero_grad`."""

    def __init__(self, probes: Sequence[Probe], task: TrainedTask, precision: str) -> None:
        self.probes, self.task, self.precision = probes, task, precision

    def loss(self, output: Tensor, micro_batch: MicroBatch) -> Tensor:
        """Return the task's loss, in float32 whatever the head computes with."""
        return self.task.loss(output.float(), micro_batch.batch.lengths, micro_batch.targets)

    def autocast(self, micro_batch: MicroBatch) -> AbstractContextManager[None]:
        """Return the context of a forward pass: bfloat16 where the recipe sets it."""
        return torch.autocast(micro_batch.batch.hidden.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @abstractmethod
    def parameters(self, index: int) -> list[Tensor]:
        """Return what an optimizer updates of the probe at `index`; gradients are there once `clip` was called."""

    @abstractmethod
    def backward(self, micro_batch: MicroBatch, share: float) -> Tensor:
        """Add `share` of each probe's gradient on a micro-batch; return the probes' losses [probes]."""

    @abstractmethod
    def clip(self, max_norm: float) -> Tensor:
        """Scale each probe's gradient down to a norm of at most `max_norm`; return the norms before [probes]."""

    @abstractmethod
    def zero_grad(self) -> None:
        """Reset the gradients."""


def batch_probes(probes: Sequence[Probe], task: TrainedTask, pooled: bool, precision: str = "float32") -> BatchedProbes:
    """Return probes that train together; heads on means over time share one batched product, which rounds as that of
    one head alone does."""
    return (_VectorizedProbes if pooled else _SequentialProbes)(probes, task, precision)


class _SequentialProbes(BatchedProbes):
    """One probe after the other, each with the same dropout and masks as if it trained alone."""

    def parameters(self, index: int) -> list[Tensor]:
        return list(self.probes[index].parameters())

    def backward(self, micro_batch: MicroBatch, share: float) -> Tensor:
        losses = []
        for probe in self.probes:
            torch.manual_seed(micro_batch.seed)
            with self.autocast(micro_batch):
                output = probe(micro_batch.batch.hidden, micro_batch.batch.lengths)
            loss = self.loss(output, micro_batch)
            (loss * share).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return torch.stack(losses)

    def clip(self, max_norm: float) -> Tensor:
        return torch.stack([nn.utils.clip_grad_norm_(probe.parameters(), max_norm) for probe in self.probes])

    def zero_grad(self) -> None:
        for parameter in (p for probe in self.probes for p in probe.parameters()):
            parameter.grad = None


class _VectorizedProbes(BatchedProbes):
    """All probes at once: their weights are slices of stacked ones, [probes, ...].

    Matrices are stored transposed, as the products give their gradients: to transpose each gradient took as long as all
    products. Optimizers want contiguous memory: they get a transposed view of it.
    """

    def __init__(self, probes: Sequence[Probe], task: TrainedTask, precision: str) -> None:
        super().__init__(probes, task, precision)
        stacked, _ = stack_module_state(list(probes))
        self.weights = {name: _transposed(_transposed(w.detach()).contiguous()) for name, w in stacked.items()}
        self.slices: list[dict[str, Tensor]] = [{} for _ in probes]
        # A subclass may compute something else, and autocast chooses a type for each operation.
        head, exact = probes[0].head, precision != "bf16"
        at_once = isinstance(task, UtteranceTask) and task.losses_at_once()
        self.head = head if type(head) is UtteranceLevel and at_once and exact else None
        for name, weights in self.weights.items():
            for k, probe in enumerate(probes):
                probe.get_parameter(name).data = weights[k]
                self.slices[k][name] = _transposed(weights)[k].requires_grad_()
            weights.requires_grad_()

    def parameters(self, index: int) -> list[Tensor]:
        return list(self.slices[index].values())

    def backward(self, micro_batch: MicroBatch, share: float) -> Tensor:
        losses = self._losses_of_any(micro_batch) if self.head is None else self._losses(self.head, micro_batch)
        (losses.sum() * share).backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    def _losses(self, head: UtteranceLevel, micro_batch: MicroBatch) -> Tensor:
        """Return the probes' losses [probes] by the operations of `_losses_of_any` alone.

        On small heads `torch.vmap` takes longer to find them than they take.
        """
        weights = {name.removeprefix("head."): weights for name, weights in self.weights.items()}
        of_layers = weights.pop("featurizer.weights", None)
        means = self.probes[0].featurizer.of_several(of_layers, micro_batch.batch.hidden)
        return self.loss(head.of_several(weights, means), micro_batch)

    def _losses_of_any(self, micro_batch: MicroBatch) -> Tensor:
        """Return the probes' losses [probes], whatever head and loss they have."""
        inputs = (micro_batch.batch.hidden, micro_batch.batch.lengths)

        def loss(weights: dict[str, Tensor]) -> Tensor:
            with self.autocast(micro_batch):
                output = functional_call(self.probes[0], weights, inputs)
            return self.loss(output, micro_batch)

        losses: Tensor = torch.vmap(loss)(self.weights)
        return losses

    @torch.no_grad()
    def clip(self, max_norm: float) -> Tensor:
        """As `torch.nn.utils.clip_grad_norm_` for each probe; then give each optimizer its slice of the gradient."""
        gradients = {name: weights.grad for name, weights in self.weights.items() if weights.grad is not None}
        by_tensor = [torch.linalg.vector_norm(g, dim=tuple(range(1, g.dim()))) for g in gradients.values()]
        norms: Tensor = torch.linalg.vector_norm(torch.stack(by_tensor), dim=0)
        scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
        for name, gradient in gradients.items():
            gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))
            for k, slices in enumerate(self.slices):
                slices[name].grad = _transposed(gradient)[k]
        return norms

    def zero_grad(self) -> None:
        for weights in self.weights.values():
            weights.grad = None


def _transposed(weights: Tensor) -> Tensor:
    """Return a view of stacked weights with matrices transposed, [probes, a, b] as [probes, b, a]."""
    return weights.mT if weights.dim() > 2 else weights
