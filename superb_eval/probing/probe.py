"""The probe: a featurizer and a head, what they answer, and how their weights are kept."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from downstreams.base import Task
from superb_eval.data.manifest import Manifest
from superb_eval.errors import UserError
from superb_eval.features.dataset import Batch, Features
from superb_eval.features.featurizer import Featurizer
from superb_eval.runtime import out_of_memory, safetensors_io

EVAL_BATCH = {True: 4096, False: 32}
"""Utterances per evaluation batch, pooled or not; the answers do not depend on it."""


class Probe(nn.Module):
    """A featurizer and a head: hidden states in, the task's output out."""

    def __init__(self, featurizer: Featurizer, head: nn.Module) -> None:
        super().__init__()
        self.featurizer = featurizer
        self.head = head

    def forward(self, hidden: Tensor, lengths: Tensor | None) -> Tensor:
        """Weigh [batch, layers, dim] or [batch, frames, layers, dim] and apply the head."""
        output: Tensor = self.head(self.featurizer(hidden), lengths)
        return output


@dataclass(frozen=True)
class Split:
    """A manifest and the features of its utterances, in its order."""

    manifest: Manifest
    features: Features


def decoded(probes: Sequence[Probe], task: Task, features: Features) -> list[list[Any]]:
    """Return what the task makes of each probe's output, for each utterance; all probes share one pass."""
    device = next(probes[0].parameters()).device
    size = EVAL_BATCH[features.pooled]
    found: list[list[Any]] = [[] for _ in probes]
    for probe in probes:
        probe.eval()
    with torch.inference_mode():
        while len(found[-1]) < len(features):
            some = range(len(found[-1]), min(len(found[-1]) + size, len(features)))
            try:
                batch = to_device(features.batch(some), device)
                answers = [task.decode(probe(batch.hidden, batch.lengths), batch.lengths) for probe in probes]
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory.is_out_of_memory(error) or size == 1:
                    raise
                out_of_memory.release(error)
                size = math.ceil(size / 2)
                warnings.warn(f"memory ran out; {size} utterances at a time are answered from here on", stacklevel=2)
            else:
                for before, more in zip(found, answers, strict=True):
                    before.extend(more)
    for probe in probes:
        probe.train()
    return found


def load_weights(path: Path, probe: Probe) -> None:
    """Fill `probe` with saved weights.

    Raises:
        UserError: they are not what was written.
    """
    try:
        weights, _ = safetensors_io.read(path)
    except safetensors_io.DamagedError as error:
        raise UserError(f"{path}: damaged ({error}). Remove it, and run its cell again.") from error
    probe.load_state_dict(weights)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on a device."""
    return Batch(batch.hidden.to(device), None if batch.lengths is None else batch.lengths.to(device))


def save_weights(path: Path, probe: Probe) -> None:
    """Write the weights of `probe`, atomically."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in probe.state_dict().items()}
    safetensors_io.write(path, weights)
