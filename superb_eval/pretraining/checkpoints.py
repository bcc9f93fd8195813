"""The state of a training in a file: weights, optimiser, and how far it has come."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from superb_eval import files
from superb_eval.errors import UserError


@dataclass
class State:
    """How far a training has come. `curve`: one dict per line of the log."""

    step: int = 0
    seconds: float = 0.0
    """Audio heard so far."""
    curve: list[dict[str, float]] = field(default_factory=list)


def write(path: Path, objective: nn.Module, optimizer: Any, state: State, seed: int) -> None:
    """Write a checkpoint; the one before stays until all of it is there.

    Raises:
        UserError: the disk is full or may not be written.
    """
    content = {
        "weights": _weights(objective),
        "optimizer": optimizer.state_dict(),
        "seed": seed,
        "state": asdict(state),
    }
    files.write(path, lambda temporary: torch.save(content, temporary))


def read(path: Path, objective: nn.Module, optimizer: Any, seed: int) -> State:
    """Fill weights and optimiser from a checkpoint and return its state; without one, change nothing.

    Raises:
        UserError: it is of another network or seed.
    """
    if not path.is_file():
        return State()
    content = torch.load(path, map_location="cpu", weights_only=True)
    own, kept = _weights(objective), content["weights"]
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in kept.items()} or content["seed"] != seed:
        raise UserError(f"{path}: is the checkpoint of another network or seed. Choose another --out folder.")
    objective.load_state_dict(kept, strict=False)
    optimizer.load_state_dict(content["optimizer"])
    return State(**content["state"])


def step(path: Path) -> int:
    """Return the update of a checkpoint, 0 where there is none."""
    return int(torch.load(path, map_location="cpu", weights_only=True)["state"]["step"]) if path.is_file() else 0


def _weights(objective: nn.Module) -> dict[str, Tensor]:
    """What is saved: all but frozen weights."""
    frozen = {name for name, p in objective.named_parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in objective.state_dict().items() if name not in frozen}
