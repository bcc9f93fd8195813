"""Stand for the objects of a checkpoint's pickle: tensors and plain containers, and inert objects for all others.

No name of a pickle is looked up. Those that state dicts need stand for a small function of this module (`BUILDERS`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from torch import Tensor

STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in STORAGES.values()}
"""Types of elements, by the name of a storage's class, and by torch's name."""


@dataclass(frozen=True)
class ForeignName:
    """Stands for a class or function that a pickle names; it was never imported."""

    name: str


@dataclass(eq=False, repr=False)
class InertObject:
    """Stands for an object of another library: what a pickle would pass to it, and no behaviour."""

    name: str
    """Of its class or of the function that would return it, with its module."""
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class StorageType:
    """Stands for a class of torch's storages."""

    dtype: torch.dtype


@dataclass(frozen=True)
class Storage:
    """The bytes [count] of a storage, and the type of its elements."""

    content: Tensor
    dtype: torch.dtype


@dataclass(frozen=True)
class Builder:
    """Stands for a function or class that state dicts need; `build` takes the unpickler and the arguments."""

    name: str
    build: Callable[..., Any]


_KEYS = (str, int, float, complex, bytes, type(None), torch.dtype, InertObject, ForeignName, Builder)


class PickleReader(Protocol):
    """What a builder needs of the unpickler."""

    size: int
    """Of the file in bytes."""

    def spend(self, count: int) -> None:
        """Take the elements that a copy costs from a budget."""

    def call(self, function: Any, arguments: Any) -> Any:
        """Return what calling would return."""


def printable(text: str) -> str:
    """Return an untrusted name as a message may show it: without control characters, and no longer than 200."""
    return "".join(char if char.isprintable() else "?" for char in text[:200])


def shown(value: Any) -> str:
    """Return an untrusted value as a message may show it; what is nested is named by its kind alone."""
    if isinstance(value, int) and abs(value) > 10**15:
        return "a huge number"
    return printable(str(value))[:60] if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def check_keys(keys: Iterable[Any]) -> None:
    """Refuse keys of nested tuples, whose hash may take forever: fifty that each hold the next one twice.

    Raises:
        UnpicklingError: a key is neither a plain value, nor an inert object, nor a flat tuple of these.
    """
    for key in keys:
        if not all(isinstance(part, _KEYS) for part in (key if isinstance(key, tuple) else (key,))):
            raise UnpicklingError(f"a {type(key).__name__} as a key")


def natural_number(value: Any) -> int:
    """Return a size that a pickle states; anything but a natural number is an `UnpicklingError`."""
    if not isinstance(value, int) or value < 0:
        raise UnpicklingError("a size is no number")
    return value


def _tensor(reader: PickleReader, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """Return a view of a storage: `torch._utils._rebuild_tensor_v2`, whose other arguments are for training."""
    del rest
    return _view(reader, storage, storage.dtype, (offset, size, stride))


def _typed_tensor(reader: PickleReader, *arguments: Any) -> Tensor:
    """Return a view with a type of its own: `torch._utils._rebuild_tensor_v3`."""
    storage, offset, size, stride, _, _, dtype, *_ = arguments
    return _view(reader, storage, dtype, (offset, size, stride))


def _view(reader: PickleReader, storage: Any, dtype: Any, place: tuple[Any, Any, Any]) -> Tensor:
    offset, size, stride = place
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise UnpicklingError("a tensor without a storage")
    sizes, strides = [natural_number(n) for n in size], [natural_number(n) for n in stride]
    elements = storage.content.view(dtype)
    end = natural_number(offset)
    if 0 not in sizes:
        end += 1 + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if len(sizes) > 64 or end > len(elements) or math.prod(sizes) > reader.size:
        raise UnpicklingError("a tensor reaches beyond its storage")
    return elements.as_strided(sizes, strides, offset)


def _parameter(reader: PickleReader, data: Any, *rest: Any) -> Any:
    del reader, rest
    return data


def _typed(reader: PickleReader, function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """Return the tensor of a subclass: `torch._tensor._rebuild_from_type_v2`."""
    del kind, state
    return reader.call(function, arguments)


def _dictionary(reader: PickleReader, entries: Any = ()) -> dict[Any, Any]:
    pairs = list(entries.items()) if type(entries) is dict else entries
    if type(pairs) not in {list, tuple}:
        raise UnpicklingError("entries are no list")
    reader.spend(len(pairs))
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise UnpicklingError("entries are no pairs")
    check_keys(pair[0] for pair in pairs)
    return dict(pairs)


def _default_dictionary(reader: PickleReader, factory: Any = None, entries: Any = ()) -> dict[Any, Any]:
    del factory
    return _dictionary(reader, entries)


def _list(reader: PickleReader, items: Any = (), *rest: Any) -> list[Any]:
    del rest
    if type(items) not in {list, tuple, set}:
        raise UnpicklingError("items are no list")
    reader.spend(len(items))
    return list(items)


def _set_of(reader: PickleReader, items: Any = ()) -> set[Any]:
    values = _list(reader, items)
    check_keys(values)
    return set(values)


def _frozen_set(reader: PickleReader, items: Any = ()) -> frozenset[Any]:
    return frozenset(_set_of(reader, items))


def _tuple(reader: PickleReader, items: Any = ()) -> tuple[Any, ...]:
    return tuple(_list(reader, items))


def _encoded(reader: PickleReader, text: Any, encoding: Any = "utf-8") -> bytes:
    if not isinstance(text, str) or encoding not in {"latin1", "latin-1", "ascii", "utf-8", "utf8"}:
        raise UnpicklingError("bytes of an unknown encoding")
    reader.spend(len(text))
    return text.encode(encoding)


def _reconstructed(reader: PickleReader, kind: Any, base: Any = None, state: Any = None) -> InertObject:
    """Return an object of a class without its own method for pickling: `copyreg._reconstructor`."""
    del reader, base
    if not isinstance(kind, ForeignName):
        raise UnpicklingError("an object of no class")
    return InertObject(kind.name, () if state is None else (state,))


def _new(reader: PickleReader, kind: Any, *arguments: Any) -> Any:
    return reader.call(kind, arguments)


BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encoded,
    ("builtins", "set"): _set_of,
    ("builtins", "frozenset"): _frozen_set,
    ("collections", "Counter"): _dictionary,
    ("collections", "OrderedDict"): _dictionary,
    ("collections", "defaultdict"): _default_dictionary,
    ("collections", "deque"): _list,
    ("copyreg", "__newobj__"): _new,
    ("copyreg", "_reconstructor"): _reconstructed,
    ("torch", "Size"): _tuple,
    ("torch._tensor", "_rebuild_from_type_v2"): _typed,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
}
"""What state dicts need, and what stands for it."""
