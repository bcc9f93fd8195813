"""Identifies an upstream by a SHA-256 of each part that its hidden states depend on.

Upstreams of this package state their parts (family and features version, settings, weights). Any other is identified
by its outputs on fixed waveforms, bit for bit, its weights and its source files. Neither depends on the source text of
this package.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import marshal
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superb_eval.errors import UserError
from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

PROBE_LENGTHS = (8_000, 16_000, 32_000)
"""Lengths of the probe waveforms in samples: 0.5, 1 and 2 s at 16 kHz."""

ENTRY, SETTINGS, WEIGHTS, OUTPUTS = "entry", "settings", "weights", "outputs"
"""Names of the parts; any other part is a file that was imported or read, by its name."""

PARTS = frozenset({ENTRY, SETTINGS, WEIGHTS, OUTPUTS})

_PACKAGE_FOLDERS = {"site-packages", "dist-packages"}
_OWN_PACKAGES = {"superb_eval", "upstreams", "downstreams", "torch"}


def fingerprint(identity: Mapping[str, str]) -> str:
    """Return one SHA-256 of all parts."""
    return hash_text(json.dumps(sorted(identity.items())))


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def hash_settings(settings: Mapping[str, Any]) -> str:
    """Return a SHA-256 of settings by name; tuples equal lists, and the order of names doesn't count."""
    return hash_text(json.dumps(settings, sort_keys=True, default=str))


def hash_weights(weights: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of tensors: names, shapes, types and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(_tensor_bytes(tensor))
    return digest.hexdigest()


def hash_outputs(module: nn.Module) -> str:
    """Return a SHA-256 of a module's output for each probe waveform by itself, on the CPU and one thread.

    Where it refuses a length, the type of its error counts; the number of threads, the random state, the module's
    device and its mode are restored. Other processors and library versions may round differently.
    """
    threads, training = torch.get_num_threads(), module.training
    device = next((tensor.device for tensor in module.state_dict().values()), torch.device("cpu"))
    digest = hashlib.sha256()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.autocast("cpu", enabled=False):
            module.eval().cpu()
            for samples in PROBE_LENGTHS:
                torch.manual_seed(0)
                digest.update(f"{samples}".encode())
                for chunk in _output_bytes(module, samples):
                    digest.update(chunk)
    finally:
        torch.set_num_threads(threads)
        module.to(device)
        if training:
            module.train()
    return digest.hexdigest()


def probe_waveform(samples: int) -> Tensor:
    """Return the probe waveform [samples]: seeded noise with a varying level, so that frames differ."""
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    return 0.1 * noise * torch.linspace(0.0, 2.0, samples).frac()


def hash_sources(module: nn.Module) -> dict[str, str]:
    """Return a SHA-256 of the source file of each class in a module, by the name of its Python module.

    Installed packages, torch and this project are left out. A class without a source file (in a notebook) counts by
    the byte code of its methods.
    """
    classes = sorted(
        {type(inner) for inner in module.modules()}, key=lambda cls: f"{cls.__module__}.{cls.__qualname__}"
    )
    digests: dict[str, str] = {}
    for cls in classes:
        if cls.__module__.partition(".")[0] in _OWN_PACKAGES:
            continue
        try:
            path = Path(inspect.getsourcefile(cls) or "")
            if not is_installed(path):
                digests[cls.__module__] = hashlib.sha256(path.read_bytes()).hexdigest()
        except (TypeError, OSError):
            digests[f"{cls.__module__}.{cls.__qualname__}"] = hashlib.sha256(_byte_code(cls)).hexdigest()
    return digests


def is_installed(path: Path) -> bool:
    """Return whether a file belongs to an installed package or to Python itself."""
    return bool(_PACKAGE_FOLDERS & set(path.parts)) or path.is_relative_to(sysconfig.get_path("stdlib"))


def differences(recorded: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """Return the names of the parts in which two identities differ; files that were added or dropped are marked."""
    words = {ENTRY: "its features version", SETTINGS: "its settings", WEIGHTS: "its weights"}
    words[OUTPUTS] = "its outputs on the probe waveforms"
    changed = []
    for name in sorted(recorded.keys() | present.keys(), key=lambda name: (name not in words, name)):
        if recorded.get(name) != present.get(name):
            mark = " (new)" if name not in recorded else " (no longer read)" if name not in present else ""
            changed.append(words.get(name, name) + mark)
    return changed


def _output_bytes(module: nn.Module, samples: int) -> list[bytes | memoryview]:
    try:
        return list(_value_bytes(module([probe_waveform(samples)])))
    except Exception as error:  # a user's module may raise anything; running it reports the error
        # A user's own module reports its error as a sentence, whose cause it is.
        cause = error.__cause__ if isinstance(error, UserError) and error.__cause__ is not None else error
        return [type(cause).__name__.encode()]


def _value_bytes(output: Any) -> Iterable[bytes | memoryview]:
    """Yield the bytes of all tensors and plain values in a module's output, however nested."""
    if isinstance(output, torch.Tensor):
        yield f"{tuple(output.shape)}{output.dtype}".encode()
        yield _tensor_bytes(output)
    elif isinstance(output, Mapping):
        for name, value in sorted(output.items(), key=lambda item: str(item[0])):
            yield str(name).encode()
            yield from _value_bytes(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _value_bytes(value)
    elif output is None or isinstance(output, int | float | str):
        yield repr(output).encode()
    else:
        yield type(output).__name__.encode()


def _tensor_bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _byte_code(cls: type) -> bytes:
    methods = sorted((name, f.__code__) for name, f in vars(cls).items() if inspect.isfunction(f))
    return b"".join(name.encode() + marshal.dumps(code) for name, code in methods)
