"""Optimizers without torch's compiler: the first update of torch's own imports it, which takes 2 s of a core."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import torch
from torch.optim import Optimizer


class _Uncompiled(Optimizer):
    """Calls what torch wraps for its compiler: the same bits, and nothing changes where torch wraps nothing."""

    add_param_group = unwrap(Optimizer.add_param_group)
    load_state_dict = unwrap(Optimizer.load_state_dict)
    state_dict = unwrap(Optimizer.state_dict)
    zero_grad = unwrap(Optimizer.zero_grad)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """See `torch.optim.Adam.step`."""
        return _STEP(self, closure)


_STEP: Callable[..., Any] = unwrap(torch.optim.Adam.step)


class Adam(_Uncompiled, torch.optim.Adam):
    """`torch.optim.Adam`."""


class AdamW(_Uncompiled, torch.optim.AdamW):
    """`torch.optim.AdamW`."""


OPTIMIZERS: dict[str, type[Adam | AdamW]] = {"adam": Adam, "adamw": AdamW}
"""By the name that a recipe gives them."""
