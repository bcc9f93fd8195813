"""What an upstream is: s3prl's contract, and the card that says what stands behind a name.

Contract (s3prl `upstream/interfaces.py`): `forward(wavs)` takes a list of 1-D float tensors [samples], 16 kHz,
unpadded, and returns `{"hidden_states": [Tensor[batch, frames, dim], ...]}`, one entry per layer, nearest the input
first. `get_downsample_rates(key)` gives the stride in samples.
"""

from __future__ import annotations

import hashlib
import inspect
import marshal
import re
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from superb_eval.errors import UserError

SAMPLE_RATE = 16_000
"""Hz, of every waveform an upstream takes."""


@dataclass(frozen=True)
class Card:
    """What is known of an upstream before its weights are opened; tables and `upstream show` print it.

    `stride` is in samples, `layers` counts the entries of `hidden_states`, `width` is their dimension. `parameters`
    counts what a forward pass uses (no pre-training heads). 0 stands for "not known before the weights are opened".
    """

    name: str
    summary: str
    stride: int
    layers: int = 0
    width: int = 0
    parameters: int = 0
    licence: str = "unknown"
    source: str = "unknown"
    training_data: str = "none"
    notes: tuple[str, ...] = field(default=())
    historical: str | None = None
    """Name of the sibling that keeps a published fault on purpose, for comparison."""


class Upstream(nn.Module, ABC):
    """A frozen encoder.

    A subclass implements `forward`, and `frames` where it can say how many frames a length gives; then utterances of
    different lengths share padded batches. Without it only equal lengths are batched, so padding never leaks.
    """

    reentrant = False
    """Whether threads may run it at once: a pass leaves nothing behind in the module that another one reads."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    @abstractmethod
    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """Return `{"hidden_states": [Tensor[batch, frames, dim], ...]}` for unpadded waveforms [samples]."""

    def frames(self, samples: int) -> int | None:
        """Return how many frames are valid for a waveform of that many samples; None: it can't be said."""
        del samples
        return None

    def refuse_short(self, wavs: list[Tensor]) -> None:
        """Raise a `UserError` where a waveform is too short for one frame."""
        shortest = min(map(len, wavs))
        if self.frames(shortest) == 0:
            raise UserError(f"{self.card.name}: {shortest} samples are too short for one frame. Give at least 0.05 s.")

    def get_downsample_rates(self, key: str) -> int:
        """Return the stride of feature `key` in samples (s3prl's name for it)."""
        del key
        return self.card.stride

    def keys(self) -> tuple[str, ...]:
        """Return the names of the features that `forward` gives."""
        return ("hidden_states",)

    def fingerprint(self) -> str:
        """Return a SHA-256 of weights, card and code: two upstreams with one fingerprint give the same features."""
        digest = hashlib.sha256(repr(sorted(asdict(self.card).items())).encode())
        # Strides, epsilons and whatever `extra_repr` adds; addresses in memory differ from run to run.
        digest.update(re.sub(r"0x[0-9a-f]+", "", repr(self)).encode())
        for kind in sorted({type(module) for module in self.modules()}, key=str):
            digest.update(b"" if kind.__module__.startswith("torch.") else _code(kind))
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def count_parameters(self) -> int:
        """Return the number of weights, all of them."""
        return sum(p.numel() for p in self.parameters())


def freeze(upstream: Upstream) -> Upstream:
    """Put an upstream in evaluation mode and stop gradients from ever reaching it."""
    return upstream.eval().requires_grad_(False)


def _code(kind: type) -> bytes:
    """Return the file that defines a class; for one typed into a notebook, the byte code of its methods."""
    try:
        return Path(inspect.getsourcefile(kind) or "").read_bytes()
    except (TypeError, OSError):
        methods = sorted((name, f.__code__) for name, f in vars(kind).items() if inspect.isfunction(f))
        return b"".join(name.encode() + marshal.dumps(code) for name, code in methods)
