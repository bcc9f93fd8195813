"""Named tensors in a safetensors file with a checksum: features, and the weights of probes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from superb_eval.runtime import atomic_files

SHA256 = "sha256"
"""The header's key for the checksum of the tensors."""


class DamagedError(Exception):
    """A file whose tensors are not those that were written."""


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> dict[str, str]:
    """Write tensors atomically, with `metadata` in the header; return the header.

    Raises:
        UserError: the disk is full or may not be written.
    """
    from safetensors.torch import save_file

    header = {**(metadata or {}), SHA256: _checksum(tensors)}
    atomic_files.write(path, lambda temporary: save_file(dict(tensors), temporary, header))
    return header


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a file's tensors, memory-mapped, and its header.

    Raises:
        DamagedError: the file can't be read, or its tensors don't match their checksum.
    """
    try:
        tensors, header = read_unchecked(path)
        checksum = _checksum(tensors)
    except Exception as error:  # of safetensors, or of torch for types and shapes that nothing here writes
        raise DamagedError(f"{type(error).__name__}: {error}"[:200]) from error
    if checksum != header.get(SHA256):
        raise DamagedError("its checksum differs")
    return tensors, header


def read_unchecked(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return what `read` does, without the checksum: for a file that was just written."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        return tensors, dict(file.metadata() or {})


def header(path: Path) -> dict[str, str]:
    """Return the header of a file, without its tensors.

    Raises:
        DamagedError: the file can't be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise DamagedError(str(error)) from error


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
