"""The state of a training in a file: weights, optimiser, and how far it has come."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files


@dataclass
class State:
    """How far a training has come. `curve`: one dict per line of the log."""

    step: int = 0
    seconds: float = 0.0
    """Audio heard so far."""
    curve: list[dict[str, float]] = field(default_factory=list)


BEFORE = ".before"
"""Ending of the checkpoint before the last one: what a training goes on from where the last one is damaged."""


def write(path: Path, objective: nn.Module, optimizer: Any, state: State, seed: int) -> None:
    """Write a checkpoint; the one before stays, beside it once all of the new one is there.

    Raises:
        UserError: the disk is full or may not be written.
    """
    content = {
        "weights": _weights(objective),
        "optimizer": optimizer.state_dict(),
        "seed": seed,
        "state": asdict(state),
    }

    def save(temporary: Path) -> None:
        torch.save(content, temporary)
        if path.is_file():
            _keep(path)

    atomic_files.write(path, save)


def read(path: Path, objective: nn.Module, optimizer: Any, seed: int) -> State:
    """Fill weights and optimiser from a checkpoint and return its state; without one, change nothing.

    It may have been written by any number of processes. A damaged one is named, and the one before is taken.

    Raises:
        UserError: it is of another network or seed, or no checkpoint that there is can be read.
    """
    content = _load(path)
    if content is None:
        return State()
    own, kept = _weights(objective), content["weights"]
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in kept.items()} or content["seed"] != seed:
        raise UserError(f"{path}: is the checkpoint of another network or seed. Choose another --out folder.")
    objective.load_state_dict(kept, strict=False)
    optimizer.load_state_dict(content["optimizer"])
    return State(**content["state"])


def step(path: Path) -> int:
    """Return the update of a checkpoint, 0 where there is none."""
    content = _load(path)
    return 0 if content is None else int(content["state"]["step"])


def _load(path: Path) -> dict[str, Any] | None:
    """Return the content of a checkpoint, or of the one before where it is damaged; None where there is neither."""
    there = [place for place in (path, path.with_name(path.name + BEFORE)) if place.is_file()]
    for place in there:
        try:
            atomic_files.check_archive(place)
            content = torch.load(place, map_location="cpu", weights_only=True)
            if not {"weights", "optimizer", "seed", "state"} <= content.keys():
                raise ValueError("it holds something else")
            return dict(content)
        except Exception as error:  # a damaged file raises whatever its bytes happen to mean
            reason = f"{type(error).__name__}: {error}"[:160]
            warnings.warn(f"{place}: damaged ({reason})", stacklevel=2)
    if there:
        raise UserError(f"{path}: is damaged, and there is no whole one before it. Remove it to begin anew.")
    return None


def _keep(path: Path) -> None:
    """Let the checkpoint that is about to be replaced stay under its second name; without room for a link, not."""
    before = path.with_name(path.name + BEFORE)
    before.unlink(missing_ok=True)
    with suppress(OSError):
        os.link(path, before)


def _weights(objective: nn.Module) -> dict[str, Tensor]:
    """What is saved: all but frozen weights."""
    frozen = {name for name, p in objective.named_parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in objective.state_dict().items() if name not in frozen}
