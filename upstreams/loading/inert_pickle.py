"""Reads the pickle of a checkpoint without importing or calling anything that the pickle names.

Python's unpickler imports what a pickle names, and calls it. Here no name is looked up: those that state dicts need
stand for small functions of `inert_values`, and every other one for an `InertObject`, which records its arguments and
its state, and does nothing. Objects of other libraries, such as fairseq's dictionaries beside the weights, are read
past. A pickle that names the standard library's means to run code (`os.system`) is refused: no checkpoint needs them.

The unpickler is the one that is written in Python: its instructions can be replaced one by one, and its memo is a
dictionary, where a large index costs no memory.
"""

from __future__ import annotations

import pickle
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from upstreams.loading.inert_values import (
    BUILDERS,
    DTYPES,
    STORAGES,
    Builder,
    ForeignName,
    InertObject,
    Storage,
    StorageType,
    check_keys,
    natural_number,
    printable,
)

_HARMLESS_MODULES = {
    *("array", "collections", "collections.abc", "datetime", "decimal", "enum", "fractions", "numbers"),
    *("pathlib", "typing", "uuid", "zoneinfo"),
    "pathlib._local",  # where the paths of Python 3.13 are from
}
_HARMLESS_NAMES = {
    ("_codecs", "encode"),
    ("argparse", "Namespace"),
    ("copyreg", "_reconstructor"),
    ("copyreg", "__newobj__"),
    ("copyreg", "__newobj_ex__"),
    ("functools", "partial"),
    ("random", "Random"),
    ("re", "_compile"),
    ("types", "SimpleNamespace"),
}
_HARMLESS_BUILTINS = {
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range", "set"),
    *("slice", "str", "tuple", "Ellipsis", "NotImplemented"),
}


class RefusedNameError(Exception):
    """A pickle names something that no checkpoint needs and that could run code; its argument is that name."""


class InertUnpickler(pickle._Unpickler):
    """Reads one pickle; `names` collects the foreign names that it holds.

    Args:
        file: with `read` and `readline`, positioned at the pickle.
        size: of the file in bytes, which bounds the elements that a pickle may copy or claim.
        load_storage: returns the content of a storage for its key, type, count of elements and view.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]

    def __init__(self, file: Any, size: int, load_storage: Callable[..., Tensor] | None = None) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self.names: set[str] = set()
        self.size = self._budget = size
        self._load_storage = load_storage

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return what stands for a name; nothing is imported.

        Raises:
            RefusedNameError: it is of the standard library, and no checkpoint needs it.
        """
        module, name = _present_name(module_name, global_name)
        top = module.partition(".")[0]
        storage = STORAGES.get(name) if top == "torch" else None
        if storage is not None:
            return StorageType(storage)
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) in BUILDERS:
            return Builder(f"{module}.{name}", BUILDERS[module, name])
        if top in sys.stdlib_module_names and not _is_harmless(module, name):
            raise RefusedNameError(printable(f"{module}.{name}"))
        if top not in sys.stdlib_module_names:
            self.names.add(printable(f"{module}.{name}"))
        return ForeignName(printable(f"{module}.{name}"))

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage that an identifier names.

        Raises:
            pickle.UnpicklingError: the identifier isn't of torch's form.
        """
        kind = pid[0] if isinstance(pid, tuple) and pid else None
        if kind == "module" and len(pid) > 1:  # a whole module of torch before 1.6: its class, and source text
            return pid[1]
        if kind != "storage" or len(pid) not in {5, 6} or not isinstance(pid[1], StorageType):
            raise pickle.UnpicklingError("a persistent identifier is none of torch's")
        if self._load_storage is None:
            raise pickle.UnpicklingError("a storage where there is none")
        _, stored, key, _, count, *view = pid
        if not isinstance(key, str | int):
            raise pickle.UnpicklingError("a storage has no name")
        content = self._load_storage(str(key), stored.dtype, natural_number(count), *view)
        return Storage(content, stored.dtype)

    def spend(self, count: int) -> None:
        """Take what a copy costs from the budget, so that a small file can't fill the memory by copying.

        Raises:
            pickle.UnpicklingError: the copies are larger than the file.
        """
        self._budget -= count
        if self._budget < 0:
            raise pickle.UnpicklingError("it copies more than it holds")

    def call(self, function: Any, arguments: Any) -> Any:
        """Return what calling would return: a builder's value, or an inert object.

        Raises:
            pickle.UnpicklingError: `function` stands for nothing that can be called.
        """
        if not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("arguments are no tuple")
        if isinstance(function, Builder):
            return function.build(self, *arguments)
        if isinstance(function, ForeignName | InertObject):
            return InertObject(function.name, arguments)
        raise pickle.UnpicklingError(f"it calls a {type(function).__name__}")

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.append(self.call(function, arguments))

    def _new_object_with_keywords(self) -> None:
        keywords = self.stack.pop()
        self._reduce()
        if isinstance(self.stack[-1], InertObject):
            self.stack[-1].entries = list(keywords.items())

    def _instance(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        arguments = tuple(self.pop_mark())
        self.append(self.call(self.find_class(module, name), arguments))

    def _object(self) -> None:
        function, *arguments = self.pop_mark()
        self.append(self.call(function, tuple(arguments)))

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], InertObject):
            self.stack[-1].state = state
        # A state dict's own state is its `_metadata`; a tensor's are attributes that a user gave it.

    def _append_items(self) -> None:
        self._add(self.pop_mark())

    def _append_item(self) -> None:
        self._add([self.stack.pop()])

    def _add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, InertObject):
            target.items.extend(items)
        elif type(target) is list:
            target.extend(items)
        elif type(target) is set:
            check_keys(items)
            target.update(items)
        else:
            raise pickle.UnpicklingError(f"it adds items to a {type(target).__name__}")

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._set(list(zip(items[::2], items[1::2], strict=True)))

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([(key, value)])

    def _set(self, entries: list[tuple[Any, Any]]) -> None:
        target = self.stack[-1]
        if isinstance(target, InertObject):
            target.entries.extend(entries)
        elif type(target) is dict:
            check_keys(key for key, _ in entries)
            target.update(entries)
        else:
            raise pickle.UnpicklingError(f"it sets items of a {type(target).__name__}")

    def _byte_array(self) -> None:
        # Python's own allocates the length that the pickle claims.
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def _dictionary(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(list(zip(items[::2], items[1::2], strict=True)))

    def _frozen_set(self) -> None:
        items = self.pop_mark()
        check_keys(items)
        self.append(frozenset(items))

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("it holds an instruction that no checkpoint needs")


InertUnpickler.dispatch |= {
    code[0]: method
    for code, method in (
        *((pickle.REDUCE, InertUnpickler._reduce), (pickle.NEWOBJ, InertUnpickler._reduce)),
        *((pickle.NEWOBJ_EX, InertUnpickler._new_object_with_keywords), (pickle.BUILD, InertUnpickler._build)),
        *((pickle.INST, InertUnpickler._instance), (pickle.OBJ, InertUnpickler._object)),
        *((code, InertUnpickler._append_items) for code in (pickle.APPENDS, pickle.ADDITEMS)),
        *((pickle.APPEND, InertUnpickler._append_item), (pickle.SETITEM, InertUnpickler._set_item)),
        *((pickle.SETITEMS, InertUnpickler._set_items), (pickle.BYTEARRAY8, InertUnpickler._byte_array)),
        *((pickle.DICT, InertUnpickler._dictionary), (pickle.FROZENSET, InertUnpickler._frozen_set)),
        *((code, InertUnpickler._refuse) for code in (pickle.EXT1, pickle.EXT2, pickle.EXT4)),
        *((code, InertUnpickler._refuse) for code in (pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)),
    )
}


def _present_name(module: str, name: str) -> tuple[str, str]:
    """Return a name of Python 2's standard library as Python 3 has it."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return module, name


def _is_harmless(module: str, name: str) -> bool:
    """Return whether checkpoints hold objects of that name, and no more can come of it; attributes never are."""
    if module == "builtins":
        return name in _HARMLESS_BUILTINS
    plain = name.isidentifier() and not name.startswith("_")
    return (module, name) in _HARMLESS_NAMES or (plain and module in _HARMLESS_MODULES)
