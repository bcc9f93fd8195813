"""Reads files of weights without ever running code from them: safetensors, and both formats of `torch.save`.

torch's own weights-only reader comes first. Where it refuses a pickle, because of an object of another library, the
file is read by `inert_pickle`, which reads past such objects. TorchScript archives hold code, and the tar format of
torch before 0.1.10 writes files while it is read: both are refused.
"""

from __future__ import annotations

import argparse
import io
import mmap
import pickle
import tarfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from superb_eval.errors import UserError
from superb_eval.runtime import outside_files
from upstreams.loading.inert_pickle import InertUnpickler, RefusedNameError
from upstreams.loading.inert_values import InertObject, natural_number
from upstreams.loading.network_building import most_bytes, one_line

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first object in a file of torch before 1.6 (`torch.serialization.MAGIC_NUMBER`)."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """What a file of weights holds."""

    path: Path
    content: dict[Any, Any]
    """Tensors, plain values and, of other libraries, `inert_values.InertObject`."""
    foreign: tuple[str, ...] = ()
    """The names of other libraries' classes and functions in it, sorted; none of them was imported."""


def read_checkpoint(path: Path) -> StoredCheckpoint:
    """Read a file of weights.

    Raises:
        UserError: it is no regular file, is larger than allowed, is damaged, holds no dictionary, or names something
            that could run code.
    """
    outside_files.check_regular(path, most_bytes())
    try:
        content, names = _read(path)
    except UserError:
        raise
    except RefusedNameError as error:
        raise UserError(
            f"{path}: refused: its pickle names {error}, which weights don't need and which could run code; none of "
            "it was run. Ask for the weights as .safetensors."
        ) from error
    except Exception as error:  # a damaged file raises various errors
        raise UserError(f"{path}: not readable as weights ({one_line(error)!r}). Is the file complete?") from error
    if isinstance(content, InertObject):  # a module that was saved whole, perhaps
        content = {"": content}
    if not isinstance(content, dict):
        raise UserError(f"{path}: isn't a plain state dict (names to tensors). Save `model.state_dict()` alone.")
    return StoredCheckpoint(path, content, tuple(sorted(names)))


def _read(path: Path) -> tuple[Any, set[str]]:
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        return load_file(path), set()
    _refuse_other_formats(path)
    try:
        # s3prl's checkpoints store the training command as a Namespace; it holds plain values.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on protocols that it may refuse
            return torch.load(path, map_location="cpu", weights_only=True), set()
    except pickle.UnpicklingError:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_old_format(path)


def _refuse_other_formats(path: Path) -> None:
    """Raise a `UserError` for files that aren't weights, or that can't be read without a risk."""
    with path.open("rb") as file:
        begin = file.read(64)
    if begin.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: is a pointer of Git LFS in place of the file. Run `git lfs pull`.")
    if begin.lstrip()[:9].lower() in {b"<!doctype", b"<html>"}:
        raise UserError(f"{path}: is a web page, not weights. Download the file itself.")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist()):
                raise UserError(f"{path}: refused: TorchScript holds code. Save `model.state_dict()` alone.")
    elif tarfile.is_tarfile(path):
        raise UserError(
            f"{path}: refused: an archive of tar, as torch before 0.1.10 wrote it, or several files packed. Give the "
            "file of weights in it, or save it anew."
        )


def _read_zip(path: Path) -> tuple[Any, set[str]]:
    """Read what `torch.save` writes since 1.6: data.pkl, and a record for each storage."""
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("no data.pkl in it")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise UserError(f"{path}: was saved on a machine of the other byte order. Save it as .safetensors there.")
        storages = _ZipStorages(archive, root, path.stat().st_size)
        content = storages.record(pickles[0])
        unpickler = InertUnpickler(io.BytesIO(content), len(content), storages.load)
        unpickler.size = storages.unread  # tensors may be as large as the file, copies no larger than the pickle
        return unpickler.load(), unpickler.names


class _ZipStorages:
    """The storages in an archive of torch. The file's size bounds what is read of it, however often a record is
    listed."""

    def __init__(self, archive: zipfile.ZipFile, root: str, size: int) -> None:
        self.unread = size
        self._archive, self._root = archive, root
        self._loaded: dict[str, Tensor] = {}

    def record(self, name: str) -> bytearray:
        """Return the bytes of a record."""
        info = self._archive.getinfo(name)
        self.unread -= info.file_size
        if info.compress_type != zipfile.ZIP_STORED or self.unread < 0:
            raise pickle.UnpicklingError(f"{name} is larger than the file")
        content = bytearray(info.file_size)
        with self._archive.open(info) as file:
            if file.readinto(content) != len(content):  # type: ignore[attr-defined]
                raise pickle.UnpicklingError(f"{name} is cut short")
        return content

    def load(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """Return the bytes of a storage."""
        if key not in self._loaded:
            self._loaded[key] = _as_bytes(self.record(f"{self._root}data/{key}"))
        if count * dtype.itemsize > len(self._loaded[key]):
            raise pickle.UnpicklingError(f"storage {key} is cut short")
        return self._loaded[key][: count * dtype.itemsize]


def _as_bytes(content: bytearray) -> Tensor:
    return torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def _read_old_format(path: Path) -> tuple[Any, set[str]]:
    """Read what `torch.save` wrote before 1.6: five pickles, then the content of the storages, in a row."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        magic, _, system = (InertUnpickler(whole, size).load() for _ in range(3))
        if magic != _MAGIC or not isinstance(system, dict):
            raise UserError(f"{path}: is a pickle, but none of `torch.save`. Save `model.state_dict()` with it.")
        if system.get("little_endian") is not True:
            raise UserError(f"{path}: was saved on a machine of the other byte order. Save it as .safetensors there.")
        storages = _OldStorages(size)
        unpickler = InertUnpickler(whole, size, storages.load)
        content = unpickler.load()
        storages.fill(whole, InertUnpickler(whole, size).load())
    return content, unpickler.names


class _OldStorages:
    """The storages of a file of torch before 1.6, which come after the tensors that are views of them."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._reserved: dict[str, tuple[Tensor, int]] = {}  # bytes, and the size of an element

    def load(self, key: str, dtype: torch.dtype, count: int, view: Any = None) -> Tensor:
        """Return the bytes of a storage, to be filled, or a part of it: `view` is a key, its offset and its count."""
        if key not in self._reserved:
            self._free -= count * dtype.itemsize
            if self._free < 0:
                raise pickle.UnpicklingError(f"storage {key} is larger than the file")
            self._reserved[key] = torch.zeros(count * dtype.itemsize, dtype=torch.uint8), dtype.itemsize
        content = self._reserved[key][0]
        if view is None:
            return content
        _, offset, length = view
        begin, end = natural_number(offset) * dtype.itemsize, natural_number(offset + length) * dtype.itemsize
        if end > len(content):
            raise pickle.UnpicklingError(f"storage {key} is cut short")
        return content[begin:end]

    def fill(self, whole: mmap.mmap, keys: Any) -> None:
        """Copy the content of the storages from a file, positioned at the first of `keys`."""
        named = type(keys) is list and all(isinstance(key, str | int) for key in keys)
        if not named or sorted(map(str, keys)) != sorted(self._reserved):
            raise pickle.UnpicklingError("storages are missing")
        for key in map(str, keys):
            content, itemsize = self._reserved[key]
            count = whole.read(8)
            if len(count) != 8 or int.from_bytes(count, "little") * itemsize != len(content):
                raise pickle.UnpicklingError(f"storage {key} is of another size")
            stored = whole.read(len(content))
            if len(stored) != len(content):
                raise pickle.UnpicklingError(f"storage {key} is cut short")
            if stored:
                content.copy_(torch.frombuffer(bytearray(stored), dtype=torch.uint8))
