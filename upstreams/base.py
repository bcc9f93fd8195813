"""What an upstream is: s3prl's contract, and the card that says what stands behind a name.

Contract (s3prl `upstream/interfaces.py`): `forward(wavs)` takes a list of 1-D float tensors [samples], 16 kHz,
unpadded, and returns `{"hidden_states": [Tensor[batch, frames, dim], ...]}`, one entry per layer, nearest the input
first. `get_downsample_rates(key)` gives the stride in samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from superb_eval.errors import UserError
from upstreams.loading import identity

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
    features_version: int = 1
    """Raised when the outputs change: what was stored and recorded before counts as another upstream's."""


class Upstream(nn.Module, ABC):
    """A frozen encoder.

    A subclass implements `forward`, and `frames` where it can say how many frames a length gives; then utterances of
    different lengths share padded batches. Without it only equal lengths are batched, so padding never leaks.

    What its features are known by is `identity`. A class of this folder names its `family`, and `feature_settings` are
    whatever else than weights decides its outputs; a class without a family of its own is known by what it gives.
    """

    family: ClassVar[str]
    """What its outputs are called for good, however classes and files are renamed."""

    own_files: Mapping[str, str] | None = None
    """SHA-256 of the files of the user's own that it was built from, by name; None: it comes from a package."""

    reentrant = False
    """Whether threads may run it at once: a pass leaves nothing behind in the module that another one reads."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card
        self._known_outputs: tuple[str, str] | None = None  # digests of weights, and of outputs with these

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
        """Return a SHA-256 of `identity`: two upstreams with one fingerprint give the same features."""
        return identity.fingerprint(self.identity())

    def identity(self) -> dict[str, str]:
        """Return a SHA-256 of each part that the features depend on, by name.

        `entry` (family and features version), `settings` and `weights`; of anybody else's class `weights`, `outputs` on
        fixed waveforms, and the source files that are no installed package's. See `upstreams.identity`.
        """
        weights = identity.of_weights(self.feature_weights())
        settings = self.feature_settings()
        parts = {identity.WEIGHTS: weights}
        if settings:
            parts[identity.SETTINGS] = identity.of_settings(settings)
        if self.own_files is None and "family" in vars(type(self)):
            return {identity.ENTRY: identity.of_text(f"{self.family} {self.card.features_version}"), **parts}
        if self._known_outputs is None or self._known_outputs[0] != weights:
            self._known_outputs = weights, identity.of_outputs(self)
        own = identity.of_sources(self) if self.own_files is None else self.own_files
        return {**parts, identity.OUTPUTS: self._known_outputs[1], **own}

    def feature_settings(self) -> dict[str, Any]:
        """Return what the outputs depend on besides weights, by name; no names of classes, files or attributes."""
        return {}

    def feature_weights(self) -> dict[str, Tensor]:
        """Return the tensors that the outputs depend on, by the names they are published under."""
        return self.state_dict()

    def count_parameters(self) -> int:
        """Return the number of weights, all of them."""
        return sum(p.numel() for p in self.parameters())


def freeze(upstream: Upstream) -> Upstream:
    """Put an upstream in evaluation mode and stop gradients from ever reaching it."""
    return upstream.eval().requires_grad_(False)
