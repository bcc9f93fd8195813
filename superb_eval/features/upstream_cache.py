"""What a store knows of upstreams: enough to run a cell whose features are all there without opening the upstream.

To import a network's library and to read its weights takes longer than the first updates of a head. What a cell asks of
an upstream besides features is kept beside them, under a hash of all that it was made from: the address, the weights'
files, the code, and the versions of the libraries. Where that can't be said of an upstream (a file of the user's,
another package's, a hub id), it is opened each time.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from threading import Lock

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

import upstreams
from superb_eval.errors import UserError
from superb_eval.features.store import default_folder
from superb_eval.runtime import atomic_files
from upstreams import registry
from upstreams.base import Card, Upstream, freeze

LIBRARIES = ("numpy", "torch", "torchaudio", "transformers")


class UpstreamFacts(BaseModel):
    """What is kept of an upstream. `strides` are in samples, by feature; `code`: files outside this project, with the
    SHA-256 of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    card: Card
    identity: dict[str, str]
    strides: dict[str, int]
    parameters: int
    reentrant: bool
    code: dict[str, str]


class CachedUpstream(Upstream):
    """An upstream that is opened when the first waveform comes; what else is asked of it is known."""

    def __init__(self, address: str, device: str, facts: UpstreamFacts) -> None:
        super().__init__(facts.card)
        self.address, self.device, self.facts = address, device, facts
        self.reentrant = facts.reentrant
        self._turn = Lock()
        self._found: list[Upstream] = []  # in a list: it is no part of this module

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """See `Upstream.forward`.

        Raises:
            UserError: the upstream is no longer what it was.
        """
        output: dict[str, list[Tensor]] = self.opened()(wavs)
        return output

    def frames(self, samples: int) -> int | None:
        """See `Upstream.frames`."""
        return self.opened().frames(samples)

    def get_downsample_rates(self, key: str) -> int:
        """See `Upstream.get_downsample_rates`; of a feature that it hasn't, the card's."""
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

    def opened(self) -> Upstream:
        """Return the upstream itself; of several threads that ask at once, one opens it."""
        with self._turn:
            if not self._found:
                with torch.inference_mode(False):  # weights made in it would be unfit for anything else
                    upstream = registry.load(self.address).to(self.device)
                if upstream.identity() != self.facts.identity:
                    raise UserError(f"{self.address}: its weights changed while this ran. Run it again.")
                self._found.append(upstream)
        return self._found[0]


def load(address: str, device: str, folder: Path | None = None) -> Upstream:
    """Return an upstream on a device, opened where the store in `folder` doesn't know it yet.

    Raises:
        UserError: see `registry.load`.
    """
    weights = registry.weights(address)
    if weights is None:
        return registry.load(address).to(device)
    path = (folder or default_folder()) / "upstreams" / f"{_identity(address, weights)}.json"
    facts = _read(path)
    if facts is not None:
        return freeze(CachedUpstream(address, device, facts))
    upstream = registry.load(address).to(device)
    atomic_files.write_text(path, _facts(upstream).model_dump_json(indent=1))
    return upstream


def _identity(address: str, weights: Sequence[Path]) -> str:
    """Return a SHA-256 of all that can be read without opening the upstream, for this environment's libraries."""
    own = sorted(Path(next(iter(upstreams.__path__))).rglob("*.py"))
    parts = [address, sys.prefix, *(f"{name} {_version(name)}" for name in LIBRARIES)]
    parts += [f"{path.name} {atomic_files.sha256(path)}" for path in (*weights, *own)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _read(path: Path) -> UpstreamFacts | None:
    """Return what is kept there; None for nothing, for what is torn, and where a library's code was edited since."""
    try:
        facts = UpstreamFacts.model_validate_json(path.read_bytes())
        edited = any(atomic_files.sha256(Path(name)) != digest for name, digest in facts.code.items())
    except (OSError, ValidationError):
        return None
    return None if edited else facts


def _facts(upstream: Upstream) -> UpstreamFacts:
    known_by_name = ("torch.", "upstreams.")  # by their version, and by `_identity`
    kinds = {type(module) for module in upstream.modules() if not type(module).__module__.startswith(known_by_name)}
    code = sorted({inspect.getsourcefile(kind) or "" for kind in kinds} - {""})
    return UpstreamFacts(
        card=upstream.card,
        identity=upstream.identity(),
        strides={key: upstream.get_downsample_rates(key) for key in upstream.keys()},  # noqa: SIM118 - it is no dict
        parameters=upstream.count_parameters(),
        reentrant=upstream.reentrant,
        code={name: atomic_files.sha256(Path(name)) for name in code},
    )
