"""torch, imported where it is first used: whoever reads results, recipes or manifests shouldn't wait seconds for it.

    from superb_eval.runtime.lazy_torch import torch

What subclasses `torch.nn.Module` imports torch itself, and is imported where a head is made.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


if TYPE_CHECKING:
    import torch as torch  # noqa: PLC0414 - handed on
else:
    torch = _Later("torch")
