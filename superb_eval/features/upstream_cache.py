"""Facts of upstreams, cached in the feature store: a run whose features are all stored never loads its upstream.

To import a network's library and to read its weights takes longer than the first updates of a head. What a run needs of
an upstream besides features is stored with them, under a hash of all that it depends on: the address, the weights'
files, the code, and the versions of the libraries. Where these are not known before loading (the user's own file,
another package, a hub id), the upstream is loaded each time.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from threading import Lock

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

import upstreams
from superb_eval.data.padding import PaddedWavs
from superb_eval.errors import UserError
from superb_eval.features.store import default_folder
from superb_eval.runtime import atomic_files, outside_files
from upstreams import registry
from upstreams.base import Card, Upstream, freeze

LIBRARIES = ("numpy", "torch", "torchaudio", "transformers")


class UpstreamFacts(BaseModel):
    """The cached facts of an upstream.

    `strides` are in samples, by feature key; `code` holds the SHA-256 of source files outside this project.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    card: Card
    identity: dict[str, str]
    strides: dict[str, int]
    parameters: int
    reentrant: bool
    padding_invariant: bool
    code: dict[str, str]


class CachedUpstream(Upstream):
    """An upstream that is loaded when it processes its first waveform; all else comes from the cache."""

    def __init__(self, address: str, device: str, facts: UpstreamFacts) -> None:
        super().__init__(facts.card)
        self.address, self.device, self.facts = address, device, facts
        self.reentrant, self.padding_invariant = facts.reentrant, facts.padding_invariant
        self._lock = Lock()
        self._loaded: list[Upstream] = []  # in a list, so that it is no submodule

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """See `Upstream.forward`.

        Raises:
            UserError: the upstream has changed since its facts were read.
        """
        output: dict[str, list[Tensor]] = self.loaded()(wavs)
        return output

    def forward_padded(self, batch: PaddedWavs) -> dict[str, list[Tensor]]:
        """See `Upstream.forward_padded`, and `forward`."""
        return self.loaded().forward_padded(batch)

    def frames(self, samples: int) -> int | None:
        """See `Upstream.frames`."""
        return self.loaded().frames(samples)

    def get_downsample_rates(self, key: str) -> int:
        """See `Upstream.get_downsample_rates`; for a feature key that it doesn't have, the card's."""
        return self.facts.strides.get(key, self.card.stride)

    def keys(self) -> tuple[str, ...]:
        """See `Upstream.keys`."""
        return tuple(self.facts.strides)

    def identity(self) -> dict[str, str]:
        """See `Upstream.identity`."""
        return dict(self.facts.identity)

    def count_parameters(self) -> int:
        """See `Upstream.count_parameters`."""
        return self.facts.parameters

    def loaded(self) -> Upstream:
        """Return the upstream itself; of several threads, the first one loads it."""
        with self._lock:
            if not self._loaded:
                with torch.inference_mode(False):  # weights created in inference mode can't be used outside it
                    upstream = registry.load(self.address).to(self.device)
                if upstream.identity() != self.facts.identity:
                    raise UserError(f"{self.address}: its weights changed while this ran. Run it again.")
                self._loaded.append(upstream)
        return self._loaded[0]


def load(address: str, device: str, folder: Path | None = None) -> Upstream:
    """Return an upstream on a device, loaded now where the store in `folder` has no facts of it yet.

    Raises:
        UserError: see `registry.load`.
    """
    weights = registry.weight_files(address)
    if weights is None:
        return registry.load(address).to(device)
    path = (folder or default_folder()) / "upstreams" / f"{_cache_key(address, weights)}.json"
    facts = _read(path)
    if facts is not None:
        return freeze(CachedUpstream(address, device, facts))
    upstream = registry.load(address).to(device)
    with suppress(UserError):  # a store that may only be read, or a full disk: the upstream itself is at hand
        atomic_files.write_text(path, _facts(upstream).model_dump_json(indent=1))
    return upstream


def _cache_key(address: str, weights: Sequence[Path]) -> str:
    """Return a SHA-256 of all that facts depend on and that is known before loading: files, code, library versions."""
    sources = sorted(Path(next(iter(upstreams.__path__))).rglob("*.py"))
    parts = [address, sys.prefix, *(f"{name} {_version(name)}" for name in LIBRARIES)]
    parts += [f"{path.name} {atomic_files.sha256(path)}" for path in (*weights, *sources)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _read(path: Path) -> UpstreamFacts | None:
    """Return cached facts; None where there are none, where they are damaged, or where their code was edited since."""
    try:
        facts = UpstreamFacts.model_validate_json(outside_files.read_bytes(path))
        edited = any(_sha256(Path(name)) != digest for name, digest in facts.code.items())
    except (UserError, OSError, ValidationError):
        return None
    return None if edited else facts


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a source file that cached facts name."""
    outside_files.check_regular(path)
    return atomic_files.sha256(path)


def _facts(upstream: Upstream) -> UpstreamFacts:
    hashed_elsewhere = ("torch.", "upstreams.")  # torch by its version, our own sources in `_cache_key`
    classes = {type(module) for module in upstream.modules()}
    foreign = {cls for cls in classes if not cls.__module__.startswith(hashed_elsewhere)}
    code = sorted({inspect.getsourcefile(cls) or "" for cls in foreign} - {""})
    return UpstreamFacts(
        card=upstream.card,
        identity=upstream.identity(),
        strides={key: upstream.get_downsample_rates(key) for key in upstream.keys()},  # noqa: SIM118 - it is no dict
        parameters=upstream.count_parameters(),
        reentrant=upstream.reentrant,
        padding_invariant=upstream.padding_invariant,
        code={name: atomic_files.sha256(Path(name)) for name in code},
    )
