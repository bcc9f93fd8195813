"""torch, imported at its first use: reading results, recipes or manifests shouldn't wait seconds for it.

    from superb_eval.runtime.lazy_torch import torch

A module that subclasses `torch.nn.Module` imports torch itself, and is imported only where a model is built.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _LazyModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


if TYPE_CHECKING:
    import torch as torch  # noqa: PLC0414 - re-exported
else:
    torch = _LazyModule("torch")
