"""What an upstream is: s3prl's contract, and the card that describes an entry.

Contract (s3prl `upstream/interfaces.py`): `forward(wavs)` takes a list of 1-D float tensors [samples], 16 kHz,
unpadded, and returns `{"hidden_states": [Tensor[batch, frames, dim], ...]}`, one entry per layer, nearest the input
first. `get_downsample_rates(key)` gives the stride in samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from superb_eval.data.padding import PaddedWavs
from superb_eval.errors import UserError
from upstreams.loading import identity

SAMPLE_RATE = 16_000
"""Hz, of every waveform that an upstream takes."""


@dataclass(frozen=True)
class Card:
    """Describes an upstream without its weights being loaded; tables and `upstream show` print it.

    `stride` is in samples, `layers` counts the entries of `hidden_states`, `width` is their dimension. `parameters`
    counts what a forward pass uses (no pre-training heads). 0: not known before the weights are loaded.
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
    """Name of the variant that reproduces a published fault on purpose, for comparison."""
    features_version: int = 1
    """Incremented when the outputs change: features and results from before then belong to another upstream."""


class Upstream(nn.Module, ABC):
    """A frozen encoder.

    A subclass implements `forward`, and `frames` where the frame count of a length is known; then utterances of
    different lengths share padded batches. Without it only equal lengths are batched, so padding never leaks.

    `identity` identifies its features. A class of this folder has a `family`, and `feature_settings` holds whatever
    besides weights decides its outputs; a class without a family of its own is identified by its outputs.
    """

    family: ClassVar[str]
    """Names its outputs permanently, however classes and files are renamed."""

    own_files: Mapping[str, str] | None = None
    """SHA-256 of the user's own files that it was built from, by name; None: it comes from a package."""

    reentrant = False
    """Whether threads may run it at once: a forward pass leaves no state in the module that another one reads."""

    padding_invariant = False
    """Whether `forward_padded` gives the same features however long the padding is, and whatever rows are added."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card
        self._cached_outputs: tuple[str, str] | None = None  # digests of weights, and of the outputs with them

    @abstractmethod
    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """Return `{"hidden_states": [Tensor[batch, frames, dim], ...]}` for unpadded waveforms [samples]."""

    def forward_padded(self, batch: PaddedWavs) -> dict[str, list[Tensor]]:
        """Return what `forward` returns for the waveforms of a padded batch.

        An upstream overrides it to take the padded batch as it is; its features may have more padded frames then.
        """
        outputs: dict[str, list[Tensor]] = self(batch.unpad())
        return outputs

    def frames(self, samples: int) -> int | None:
        """Return the number of valid frames of a waveform of `samples`; None: not known."""
        del samples
        return None

    def refuse_short(self, wavs: list[Tensor] | PaddedWavs) -> None:
        """Raise a `UserError` where a waveform is too short for one frame."""
        shortest = min(wavs.lengths if isinstance(wavs, PaddedWavs) else map(len, wavs))
        if self.frames(shortest) == 0:
            raise UserError(f"{self.card.name}: {shortest} samples are too short for one frame. Give at least 0.05 s.")

    def get_downsample_rates(self, key: str) -> int:
        """Return the stride of feature `key` in samples (s3prl's name for it)."""
        del key
        return self.card.stride

    def keys(self) -> tuple[str, ...]:
        """Return the names of the features that `forward` returns."""
        return ("hidden_states",)

    def fingerprint(self) -> str:
        """Return a SHA-256 of `identity`: two upstreams with one fingerprint return identical features."""
        return identity.fingerprint(self.identity())

    def identity(self) -> dict[str, str]:
        """Return a SHA-256 of each part that the features depend on, by name.

        `entry` (family and features version), `settings` and `weights`; of any other class `weights`, `outputs` on
        fixed waveforms, and its source files that belong to no installed package. See `upstreams.loading.identity`.
        """
        weights = identity.hash_weights(self.feature_weights())
        settings = self.feature_settings()
        parts = {identity.WEIGHTS: weights}
        if settings:
            parts[identity.SETTINGS] = identity.hash_settings(settings)
        if self.own_files is None and "family" in vars(type(self)):
            return {identity.ENTRY: identity.hash_text(f"{self.family} {self.card.features_version}"), **parts}
        if self._cached_outputs is None or self._cached_outputs[0] != weights:
            self._cached_outputs = weights, identity.hash_outputs(self)
        own = identity.hash_sources(self) if self.own_files is None else self.own_files
        parts[identity.OUTPUTS] = self._cached_outputs[1]
        # A file may be called as a part is.
        return {**parts, **{f"./{name}" if name in parts else name: digest for name, digest in own.items()}}

    def feature_settings(self) -> dict[str, Any]:
        """Return what the outputs depend on besides weights, by name, without names of classes, files or attributes."""
        return {}

    def feature_weights(self) -> dict[str, Tensor]:
        """Return the tensors that the outputs depend on, by their published names."""
        return self.state_dict()

    def count_parameters(self) -> int:
        """Return the number of weights."""
        return sum(p.numel() for p in self.parameters())


def of_given_weights(card: Card, checkpoint: str | None) -> Card:
    """Return the card of a name with weights of the user's own, of which no more is known than where they are."""
    if checkpoint is None:
        return card
    return replace(card, source=checkpoint, licence="unknown", training_data="unknown: the weights were given by path")


def freeze(upstream: Upstream) -> Upstream:
    """Put an upstream in evaluation mode and exclude it from gradients."""
    return upstream.eval().requires_grad_(False)
