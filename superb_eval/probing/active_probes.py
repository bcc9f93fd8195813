"""The probes of a training that have not diverged: their updates, each with an optimizer of its own.

An update whose gradient is not finite is skipped, for its probe alone (s3prl `downstream/runner.py`). Optimizers read a
flag on the device (`found_inf`, as torch's GradScaler sets it), so that no update waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from downstreams.base import TrainedTask
from superb_eval.probing.batched_probes import batch_probes
from superb_eval.probing.optimizers import OPTIMIZERS
from superb_eval.probing.probe_state import ProbeState
from superb_eval.recipe import TrainSettings

DIVERGED_AFTER = 10
"""A probe has diverged when none of its last ten updates was finite; where an evaluation is due after fewer than
twenty, none of the latter half of those since the one before. Its outputs are not finite then, so none are scored."""


class ActiveProbes:
    """Probes that train together, and what their updates since the last evaluation were."""

    def __init__(self, states: Sequence[ProbeState], task: TrainedTask, settings: TrainSettings, pooled: bool) -> None:
        self.task, self.settings, self.pooled = task, settings, pooled
        self.losses: list[Tensor] = []
        """Of each update, [probes]."""
        self.finite: list[Tensor] = []
        """Whether loss and gradient of each update were finite, [probes]."""
        self._train(states, [])

    def _train(self, states: Sequence[ProbeState], optimizer_states: Sequence[dict[str, Any]]) -> None:
        """Train these probes from now on, with new optimizers or those of a checkpoint."""
        self.states = list(states)
        for parameter in (p for state in states for p in state.probe.parameters()):
            parameter.data = parameter.data.contiguous()  # other strides may round otherwise than a resumed run's
        probes = [state.probe for state in states]
        self.probes = batch_probes(probes, self.task, self.pooled, self.settings.precision)
        kind = OPTIMIZERS[self.settings.optimizer]
        self.optimizers: list[torch.optim.Optimizer] = [
            kind(self.probes.parameters(k), lr=state.lr, fused=True) for k, state in enumerate(states)
        ]
        for optimizer, saved in zip(self.optimizers, optimizer_states, strict=bool(optimizer_states)):
            optimizer.load_state_dict(saved)

    def resume(self, optimizer_states: Sequence[dict[str, Any]]) -> None:
        """Continue with the optimizers of a checkpoint, without the probes that had diverged."""
        self._train([state for state in self.states if state.state.diverged_at is None], optimizer_states)

    def update(self, step: int, losses: Tensor) -> None:
        """Update each probe from its gradient, where that is finite; `losses` are the probes' [probes]."""
        finite = self.probes.clip(self.settings.clip).isfinite() & losses.isfinite()
        skipped = (~finite).to(torch.float32)
        for k, (state, optimizer) in enumerate(zip(self.states, self.optimizers, strict=True)):
            optimizer.param_groups[0]["lr"] = state.lr * self.settings.rate_factor(step)
            optimizer.found_inf = skipped[k]  # type: ignore[attr-defined]
            optimizer.step()
        self.probes.zero_grad()
        self.losses.append(losses)
        self.finite.append(finite)

    def diverged(self) -> list[ProbeState]:
        """Return the probes none of whose last updates was finite; this waits for the device."""
        count = min(DIVERGED_AFTER, math.ceil(len(self.finite) / 2))
        recent = torch.stack(self.finite[-count:]).any(dim=0).tolist()
        return [state for state, finite in zip(self.states, recent, strict=True) if not finite]

    def first_skipped(self, state: ProbeState) -> tuple[int, float]:
        """Return how many updates ago (0: the last one) the first skipped one was, and its loss."""
        k = self.states.index(state)
        place = next(i for i, finite in enumerate(self.finite) if not finite[k])
        return len(self.finite) - 1 - place, float(self.losses[place][k])

    def drop(self, diverged: Sequence[ProbeState], step: int) -> None:
        """Train the others alone from now on."""
        for state in diverged:
            skipped = self._skipped()[self.states.index(state)]
            state.state.step, state.state.diverged_at = step, step
            state.state.skipped += skipped
        kept = [k for k, state in enumerate(self.states) if state.state.diverged_at is None]
        self.losses = [losses[kept] for losses in self.losses]
        self.finite = [finite[kept] for finite in self.finite]
        self._train([self.states[k] for k in kept], [self.optimizers[k].state_dict() for k in kept])

    def _skipped(self) -> list[int]:
        counts: list[int] = (~torch.stack(self.finite)).sum(dim=0).tolist()
        return counts

    def close_window(self) -> list[float]:
        """Return each probe's mean loss over its updates since the last evaluation, count those skipped, start anew."""
        losses, finite = torch.stack(self.losses), torch.stack(self.finite)
        for state, skipped in zip(self.states, self._skipped(), strict=True):
            state.state.skipped += skipped
        self.losses.clear()
        self.finite.clear()
        means: list[float] = torch.where(finite, losses, torch.nan).nanmean(dim=0).tolist()
        return means
