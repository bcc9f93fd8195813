"""Objects of this Python process, at `python:NAME`: modules and functions that `superb_eval.evaluate` was given.

Another process can't open such an address: its message names what to write instead.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from superb_eval.errors import UserError
from upstreams.base import Upstream
from upstreams.loading import adapters
from upstreams.loading.own_code import running

_OBJECTS: dict[str, nn.Module | Callable[..., Any]] = {}


class FunctionModule(nn.Module):
    """A function of waveforms [samples] as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, wavs: list[Tensor]) -> Any:
        """Return what the function returns for a list of waveforms."""
        return self.function(wavs)


def add(obj: nn.Module | Callable[..., Any]) -> str:
    """Register an object under the name of its class or function, and return its address.

    A module is copied, so that its later training changes nothing, and its mode and gradients stay as they are. A
    class, or a function that can be called without arguments, builds a module; any other function is a forward pass.

    Raises:
        UserError: the module can't be copied, or it is neither a module nor a function.
    """
    if isinstance(obj, nn.Module):
        name, obj = type(obj).__name__, _copied(obj)
    elif callable(obj):
        name = getattr(obj, "__name__", type(obj).__name__)
        obj = obj if isinstance(obj, type) or _takes_nothing(obj) else FunctionModule(obj)
    else:
        raise UserError(f"a {type(obj).__name__} is no upstream. Expected an address, a torch.nn.Module or a function.")
    name = "".join(char if char.isalnum() or char == "_" else "_" for char in name)
    _OBJECTS[name] = obj
    return f"python:{name}"


def open_address(name: str, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open an object that this process was given.

    Raises:
        UserError: it was given to another process, a checkpoint or seed is asked for, or it is no encoder.
    """
    if name not in _OBJECTS:
        raise UserError(
            f"python:{name}: is an object of the process that evaluated it. Write its class to a file, and give "
            f"FILE.py:{name}."
        )
    if checkpoint is not None or seed is not None:
        raise UserError(f"python:{name}: is an object as it stands: drop '@', and load its weights before.")
    return adapters.from_object(_OBJECTS[name], f"python:{name}")


def _copied(module: nn.Module) -> nn.Module:
    with running(type(module).__name__, "can't be copied, so give its class instead"):
        return copy.deepcopy(module)


def _takes_nothing(function: Callable[..., Any]) -> bool:
    """Return whether a function can be called without arguments: then it builds a module."""
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True
