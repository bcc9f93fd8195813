"""Counts the operations of a pass as a GPU would launch them, and refuses those that wait for a device.

On a CPU a value of the host is recognised by its shape: a number that is written by indices has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

READS = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "unique_dim"}
"""Operations whose result, or its shape, depends on values: on a GPU each waits for all that was launched before."""

INDEXED = {"index", "index_put", "index_put_"}


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts dispatched operations in `count`; one that reads values, or copies one, is an AssertionError."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Count an operation, and run it."""
        del types
        name = str(func).split(".")[1]
        assert name not in READS, f"{func} reads from the device"
        assert name not in INDEXED or not _reads_a_mask(args), f"{func} by a mask reads from the device"
        assert name not in INDEXED or not _copies_a_number(args), f"{func} copies a number to the device"
        self.count += 1
        return func(*args, **(kwargs or {}))


def _reads_a_mask(args: Sequence[Any]) -> bool:
    """Return whether the positions of a mask have to be found: a single value for all of them is a plain fill."""
    return _by_mask(args) and (len(args) < 3 or args[2].numel() > 1)


def _copies_a_number(args: Sequence[Any]) -> bool:
    """Return whether a number made on the host is written at some indices: torch waits for its copy.

    It fills the places of a mask without one.
    """
    return len(args) > 2 and not _by_mask(args) and args[2].dim() == 0 and args[2].device.type == "cpu"


def _by_mask(args: Sequence[Any]) -> bool:
    return any(index is not None and index.element_size() == 1 for index in args[1])
