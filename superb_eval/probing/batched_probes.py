"""Several probes that train side by side on the same batches, one for each learning rate, as if each were alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from downstreams.base import Task
from superb_eval.features.dataset import Batch
from superb_eval.probing.probe import Probe


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch: its features, what each utterance's answer is, and the seed of what is random in a head."""

    batch: Batch
    targets: Sequence[Any]
    seed: int


class BatchedProbes(ABC):
    """Probes that hear every batch together. Their gradients add up until `clear`."""

    def __init__(self, probes: Sequence[Probe], task: Task, precision: str) -> None:
        self.probes, self.task, self.precision = probes, task, precision

    def loss(self, output: Tensor, given: MicroBatch) -> Tensor:
        """Return the task's loss, in float32 whatever the head computes with."""
        return self.task.loss(output.float(), given.batch.lengths, given.targets)

    def arithmetic(self, given: MicroBatch) -> AbstractContextManager[None]:
        """What heads run in."""
        return torch.autocast(given.batch.hidden.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @abstractmethod
    def parameters(self, number: int) -> list[Tensor]:
        """Return what an optimiser is to update of a probe; gradients are there once `clip` was called."""

    @abstractmethod
    def backward(self, given: MicroBatch, share: float) -> Tensor:
        """Add `share` of each probe's gradient on a micro-batch; return the probes' losses [probes]."""

    @abstractmethod
    def clip(self, bound: float) -> None:
        """Scale each probe's gradient down to a norm of at most `bound`."""

    @abstractmethod
    def clear(self) -> None:
        """Forget the gradients."""


def assemble(probes: Sequence[Probe], task: Task, pooled: bool, precision: str = "float32") -> BatchedProbes:
    """Return a team; several heads on means over time share one batched product."""
    return (_Vectorized if pooled and len(probes) > 1 else _OneByOne)(probes, task, precision)


class _OneByOne(BatchedProbes):
    """One probe after the other, each with the same draws of dropout and masks as if it were alone."""

    def parameters(self, number: int) -> list[Tensor]:
        return list(self.probes[number].parameters())

    def backward(self, given: MicroBatch, share: float) -> Tensor:
        losses = []
        for probe in self.probes:
            torch.manual_seed(given.seed)
            with self.arithmetic(given):
                output = probe(given.batch.hidden, given.batch.lengths)
            loss = self.loss(output, given)
            (loss * share).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return torch.stack(losses)

    def clip(self, bound: float) -> None:
        for probe in self.probes:
            nn.utils.clip_grad_norm_(probe.parameters(), bound)

    def clear(self) -> None:
        for parameter in (p for probe in self.probes for p in probe.parameters()):
            parameter.grad = None


class _Vectorized(BatchedProbes):
    """All probes at once: their weights are slices of stacked ones, [probes, ...].

    In memory matrices lie transposed, as the products give their gradients: to turn each gradient around took as long
    as all products. Optimisers want what they update in one piece: they get the same memory, seen the other way round.
    """

    def __init__(self, probes: Sequence[Probe], task: Task, precision: str) -> None:
        super().__init__(probes, task, precision)
        stacked, _ = stack_module_state(list(probes))
        self.weights = {name: _turned(_turned(tensor.detach()).contiguous()) for name, tensor in stacked.items()}
        self.parts: list[dict[str, Tensor]] = [{} for _ in probes]
        for name, tensor in self.weights.items():
            for k, probe in enumerate(probes):
                probe.get_parameter(name).data = tensor[k]
                self.parts[k][name] = _turned(tensor)[k].requires_grad_()
            tensor.requires_grad_()

    def parameters(self, number: int) -> list[Tensor]:
        return list(self.parts[number].values())

    def backward(self, given: MicroBatch, share: float) -> Tensor:
        def loss(weights: dict[str, Tensor]) -> Tensor:
            with self.arithmetic(given):
                output = functional_call(self.probes[0], weights, (given.batch.hidden, given.batch.lengths))
            return self.loss(output, given)

        losses: Tensor = torch.vmap(loss)(self.weights)
        (losses.sum() * share).backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    @torch.no_grad()
    def clip(self, bound: float) -> None:
        """As `torch.nn.utils.clip_grad_norm_` does for each probe; then each optimiser finds its slice."""
        gradients = {name: tensor.grad for name, tensor in self.weights.items() if tensor.grad is not None}
        own = [torch.linalg.vector_norm(g, dim=tuple(range(1, g.dim()))) for g in gradients.values()]
        norms = torch.linalg.vector_norm(torch.stack(own), dim=0)
        scale = (bound / (norms + 1e-6)).clamp(max=1.0)
        for name, gradient in gradients.items():
            gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))
            for k, part in enumerate(self.parts):
                part[name].grad = _turned(gradient)[k]

    def clear(self) -> None:
        for tensor in self.weights.values():
            tensor.grad = None


def _turned(weights: Tensor) -> Tensor:
    """Return stacked weights with matrices transposed, [probes, a, b] as [probes, b, a]; the memory is the same."""
    return weights.mT if weights.dim() > 2 else weights
