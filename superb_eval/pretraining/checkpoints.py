"""Checkpoints of a training: weights, optimiser and progress in one file."""

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
    """Progress of a training: updates done, and in `curve` one dict per line of the log."""

    step: int = 0
    seconds: float = 0.0
    """Audio processed so far."""
    curve: list[dict[str, float]] = field(default_factory=list)


PREVIOUS = ".before"
"""Suffix of the previous checkpoint, from which a training resumes where the last one is damaged."""


def write(path: Path, objective: nn.Module, optimizer: Any, state: State, seed: int) -> None:
    """Write a checkpoint; the previous one stays under its second name.

    Raises:
        UserError: the disk is full, or the folder is not writable.
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
            _link_previous(path)

    atomic_files.write(path, save)


def read(path: Path, objective: nn.Module, optimizer: Any, seed: int) -> State:
    """Load weights and optimiser from a checkpoint and return its state; without one, change nothing.

    It may have been written by any number of processes. A damaged one is reported, and the previous one is read.

    Raises:
        UserError: it belongs to another network or seed, or neither checkpoint can be read.
    """
    content = _load(path)
    if content is None:
        return State()
    own, saved = _weights(objective), content["weights"]
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in saved.items()} or content["seed"] != seed:
        raise UserError(f"{path}: is the checkpoint of another network or seed. Choose another --out folder.")
    objective.load_state_dict(saved, strict=False)
    optimizer.load_state_dict(content["optimizer"])
    return State(**content["state"])


def saved_step(path: Path) -> int:
    """Return the update of a checkpoint, 0 where there is none.

    Raises:
        UserError: neither it nor the previous one can be read.
    """
    content = _load(path)
    return 0 if content is None else int(content["state"]["step"])


def _load(path: Path) -> dict[str, Any] | None:
    """Return the content of a checkpoint, or of the previous one where it is damaged; None where there is neither."""
    candidates = [file for file in (path, path.with_name(path.name + PREVIOUS)) if file.is_file()]
    for file in candidates:
        try:
            atomic_files.check_archive(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
            if not {"weights", "optimizer", "seed", "state"} <= content.keys():
                raise ValueError("it has other keys than a checkpoint")
            return dict(content)
        except Exception as error:  # damaged bytes may raise any exception
            reason = f"{type(error).__name__}: {error}"[:160]
            warnings.warn(f"{file}: damaged ({reason})", stacklevel=2)
    if candidates:
        raise UserError(f"{path}: is damaged, and no previous checkpoint can be read. Remove it to start over.")
    return None


def _link_previous(path: Path) -> None:
    """Link the checkpoint that is about to be replaced to its second name; on a full disk there is none."""
    previous = path.with_name(path.name + PREVIOUS)
    previous.unlink(missing_ok=True)
    with suppress(OSError):
        os.link(path, previous)


def _weights(objective: nn.Module) -> dict[str, Tensor]:
    """Return the weights to save: all but frozen ones."""
    frozen = {name for name, p in objective.named_parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in objective.state_dict().items() if name not in frozen}
