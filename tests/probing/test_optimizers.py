"""Against torch's own: the same bits and states, and no import of its compiler."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from superb_eval.probing.optimizers import OPTIMIZERS

TORCHS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def weights() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((40, 30), (40,), (3,))]


def update(optimizer: torch.optim.Optimizer, updated: list[Tensor], steps: int) -> None:
    """As `ActiveProbes.update` does: the rate changes, and the third update is skipped."""
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        for tensor in updated:
            tensor.grad = torch.randn(tensor.shape, generator=generator)
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
        optimizer.found_inf = torch.tensor(float(step == 2))  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.zero_grad()
    assert updated[0].grad is None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_and_states_are_those_of_torch(name: str) -> None:
    ours, theirs = weights(), weights()
    one, other = OPTIMIZERS[name](ours, lr=0.01, fused=True), TORCHS[name](theirs, lr=0.01, fused=True)
    update(one, ours, 5)
    update(other, theirs, 5)
    resumed = weights()
    for tensor, trained in zip(resumed, theirs, strict=True):
        tensor.data.copy_(trained.data)
    again = OPTIMIZERS[name](resumed, lr=0.01, fused=True)
    again.load_state_dict(deepcopy(other.state_dict()))  # whose moments it would share
    assert one.state_dict().keys() == other.state_dict().keys() == again.state_dict().keys()
    for updated, optimizer in ((ours, one), (theirs, other), (resumed, again)):
        update(optimizer, updated, 3)
    for mine, torchs, continued in zip(ours, theirs, resumed, strict=True):
        assert torch.equal(mine, torchs) and torch.equal(continued, torchs)


def test_they_import_no_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from superb_eval.probing.optimizers import OPTIMIZERS\n"
        "for kind in OPTIMIZERS.values():\n"
        "    weight = torch.ones(2, requires_grad=True)\n"
        "    weight.grad = torch.ones(2)\n"
        "    optimizer = kind([weight], lr=0.1, fused=True)\n"
        "    optimizer.step()\n"
        "    optimizer.zero_grad()\n"
        "    optimizer.load_state_dict(optimizer.state_dict())\n"
        "    assert float(weight[0]) < 1\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
