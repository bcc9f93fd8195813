"""What an upstream is known by: a SHA-256 of each part that its hidden states depend on.

Encoders of this folder state their parts (family and features version, settings, weights). Anybody else's is known by
what it gives: its outputs on fixed waveforms, bit for bit, with its weights and its source files. Neither depends on
how the source of this package reads.
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

from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

PROBES = (8_000, 16_000, 32_000)
"""Lengths of the probe waveforms in samples: 0.5, 1 and 2 s at 16 kHz."""

ENTRY, SETTINGS, WEIGHTS, OUTPUTS = "entry", "settings", "weights", "outputs"
"""Names of the parts; any other part is a source file or a file that was read, by its name."""

_FROM_PACKAGES = {"site-packages", "dist-packages"}
_OURS = {"superb_eval", "upstreams", "downstreams", "torch"}


def fingerprint(identity: Mapping[str, str]) -> str:
    """Return one SHA-256 of all parts."""
    return of_text(json.dumps(sorted(identity.items())))


def of_text(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def of_settings(settings: Mapping[str, Any]) -> str:
    """Return a SHA-256 of settings by name; tuples and lists are one, the order of names doesn't count."""
    return of_text(json.dumps(settings, sort_keys=True, default=str))


def of_weights(weights: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of tensors: names, shapes, types and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def of_outputs(module: nn.Module) -> str:
    """Return a SHA-256 of all that a module gives for each probe waveform by itself, on the CPU and one thread.

    Where it refuses a length, the type of its error stands in; other threads, the random state, the module's device
    and its mode are left as they were. Other processors and library versions may round otherwise.
    """
    threads, training = torch.get_num_threads(), module.training
    device = next((tensor.device for tensor in module.state_dict().values()), torch.device("cpu"))
    digest = hashlib.sha256()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.autocast("cpu", enabled=False):
            module.eval().cpu()
            for samples in PROBES:
                torch.manual_seed(0)
                digest.update(f"{samples}".encode())
                for piece in _given(module, samples):
                    digest.update(piece)
    finally:
        torch.set_num_threads(threads)
        module.to(device)
        if training:
            module.train()
    return digest.hexdigest()


def probe(samples: int) -> Tensor:
    """Return the probe waveform [samples]: seeded noise that swells and fades, so that frames differ in level."""
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    return 0.1 * noise * torch.linspace(0.0, 2.0, samples).frac()


def of_sources(module: nn.Module) -> dict[str, str]:
    """Return a SHA-256 of the source of each class that a module is made of, by the name of its Python module.

    Installed packages, torch and this project don't count. A class without a source file (of a notebook) counts by
    the byte code of its methods.
    """
    kinds = sorted(
        {type(inner) for inner in module.modules()}, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}"
    )
    found: dict[str, str] = {}
    for kind in kinds:
        if kind.__module__.partition(".")[0] in _OURS:
            continue
        try:
            path = Path(inspect.getsourcefile(kind) or "")
            if not installed(path):
                found[kind.__module__] = hashlib.sha256(path.read_bytes()).hexdigest()
        except (TypeError, OSError):
            found[f"{kind.__module__}.{kind.__qualname__}"] = hashlib.sha256(_byte_code(kind)).hexdigest()
    return found


def installed(path: Path) -> bool:
    """Return whether a file belongs to an installed package or to Python itself."""
    return bool(_FROM_PACKAGES & set(path.parts)) or path.is_relative_to(sysconfig.get_path("stdlib"))


def differences(recorded: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """Return the names of the parts that two identities don't share, in words; files that came or went are marked."""
    words = {ENTRY: "its features version", SETTINGS: "its settings", WEIGHTS: "its weights"}
    words[OUTPUTS] = "its outputs on the probe waveforms"
    changed = []
    for name in sorted(recorded.keys() | present.keys(), key=lambda name: (name not in words, name)):
        if recorded.get(name) != present.get(name):
            mark = " (new)" if name not in recorded else " (no longer read)" if name not in present else ""
            changed.append(words.get(name, name) + mark)
    return changed


def only_outputs_differ(recorded: Mapping[str, str], present: Mapping[str, str]) -> bool:
    """Return whether two identities share all parts but the outputs, which another processor may round otherwise."""
    return (
        recorded.keys() == present.keys()
        and OUTPUTS in recorded
        and all(recorded[name] == present[name] for name in recorded if name != OUTPUTS)
    )


def _given(module: nn.Module, samples: int) -> list[bytes | memoryview]:
    try:
        return list(_pieces(module([probe(samples)])))
    except Exception as error:  # somebody's module may raise anything; a run of it reports it
        return [type(error).__name__.encode()]


def _pieces(output: Any) -> Iterable[bytes | memoryview]:
    """Yield the bytes of all tensors in what a module gave, whatever holds them."""
    if isinstance(output, torch.Tensor):
        yield f"{tuple(output.shape)}{output.dtype}".encode()
        yield _bytes(output)
    elif isinstance(output, Mapping):
        for name, value in sorted(output.items(), key=lambda item: str(item[0])):
            yield str(name).encode()
            yield from _pieces(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _pieces(value)
    elif output is None or isinstance(output, int | float | str):
        yield repr(output).encode()
    else:
        yield type(output).__name__.encode()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _byte_code(kind: type) -> bytes:
    methods = sorted((name, f.__code__) for name, f in vars(kind).items() if inspect.isfunction(f))
    return b"".join(name.encode() + marshal.dumps(code) for name, code in methods)
