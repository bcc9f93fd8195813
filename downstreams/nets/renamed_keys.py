"""Reads the weights of heads whose parameters had other names when they were saved."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn


class RenamedSubmodules(nn.Module):
    """A module some of whose submodules were renamed since weights were saved.

    `FORMER_NAMES` maps former names to today's. A state dict with former names loads like one with today's.
    """

    FORMER_NAMES: ClassVar[dict[str, str]]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for former, name in self.FORMER_NAMES.items():
            for key in [key for key in state_dict if key.startswith(f"{prefix}{former}.")]:
                state_dict[f"{prefix}{name}.{key.removeprefix(f'{prefix}{former}.')}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
