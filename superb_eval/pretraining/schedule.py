"""The optimiser of a training, and its learning rate at each update."""

from __future__ import annotations

import torch

from superb_eval.pretraining.objective import Objective
from superb_eval.pretraining.recipe import OptimSettings


def rate(settings: OptimSettings, step: int) -> float:
    """Return the share of the peak learning rate at an update: linear up from 0, then down to 0 after the last."""
    peak = max(1.0, settings.warmup * settings.steps)
    return step / peak if step <= peak else (settings.steps + 1 - step) / (settings.steps + 1 - peak)


def optimizer(objective: Objective, settings: OptimSettings) -> torch.optim.Optimizer:
    """Return AdamW with the convolutions, where the objective has some, in a group of their own."""
    front = objective.front()
    slow = [p for p in (front.parameters() if front else ()) if p.requires_grad]
    apart = {id(p) for p in slow}
    rest = [p for p in objective.parameters() if p.requires_grad and id(p) not in apart]
    groups = [{"params": rest, "factor": 1.0}, {"params": slow, "factor": settings.front_lr}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )
