"""HuBERT (Hsu et al., arXiv 2106.07447) on the transformers network, made independent of what shares the batch.

HuBERT Base's first convolution is followed by a GroupNorm with one group per channel, whose statistics run over time.
s3prl, transformers and torchaudio let them run over the padding too, so that an utterance's features change with its
neighbours (by 56 % for 1.3 s of speech padded by 8 s, random weights). Here they run over each utterance's own
frames: a batch equals its members one by one. `hubert_padded` keeps the published behaviour, for comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from upstreams.base import Card, Upstream
from upstreams.loading.conv_frontend import Convolutions
from upstreams.loading.load_weights import open_model, shipped
from upstreams.loading.network_settings import network_settings

if TYPE_CHECKING:
    from transformers import HubertModel

HUB = {"hubert": "facebook/hubert-base-ls960", "hubert_base": "facebook/hubert-base-ls960"}
"""Where the weights of a name are fetched from when its address gives none."""

_MINI = {
    "hidden_size": 192,
    "num_attention_heads": 4,
    "intermediate_size": 768,
    "conv_dim": (32, 64, 128, 128, 128, 192, 192),
    "num_conv_pos_embeddings": 64,
}
CONFIGS: dict[str, dict[str, Any]] = {"hubert_mini": _MINI, "hubert_nano": {**_MINI, "num_hidden_layers": 2}}
"""What departs from HuBERT Base (`transformers.HubertConfig`'s defaults), by name."""

_BASE = {
    "stride": 320,
    "layers": 13,
    "width": 768,
    "parameters": 94_371_712,
    "licence": "Apache-2.0 (fairseq's weights: MIT)",
    "source": "arXiv 2106.07447; hub id facebook/hubert-base-ls960",
    "training_data": "LibriSpeech 960 h",
}
_SMALL = {
    "stride": 320,
    "width": 192,
    "licence": "Apache-2.0",
    "source": "this repository",
    "training_data": "see the card beside its weights, upstreams/weights/hubert_mini/README.md",
}

CARDS = (
    Card(name="hubert", summary="HuBERT Base, batch-invariant", historical="hubert_padded", **_BASE),  # type: ignore[arg-type]
    Card(name="hubert_base", summary="the same as hubert", historical="hubert_padded", **_BASE),  # type: ignore[arg-type]
    Card(
        name="hubert_padded",
        summary="HuBERT Base, first GroupNorm over the padded batch, as published",
        notes=("an utterance's features depend on what it is batched with",),
        **_BASE,  # type: ignore[arg-type]
    ),
    Card(name="hubert_mini", summary="12 layers x 192", layers=13, parameters=5_776_384, **_SMALL),  # type: ignore[arg-type]
    Card(
        name="hubert_nano",
        summary="2 layers x 192, for tests",
        layers=3,
        parameters=1_327_744,
        **{**_SMALL, "training_data": "none: for tests, use @random"},  # type: ignore[arg-type]
    ),
)


def place(card: Card, checkpoint: str | None) -> str | None:
    """Return the file, folder or hub id that a name's weights come from; None: there are none."""
    name = card.name.removesuffix("_padded")
    return checkpoint or shipped(name) or HUB.get(name)


def build(card: Card, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open HuBERT with seeded random weights, from a file, a folder in transformers' layout, or from the hub.

    Raises:
        UserError: there are no weights there, they don't fit, or the file wants to run code.
    """
    config = CONFIGS.get(card.name.removesuffix("_padded"), {})
    opened = open_model(card, config, place(card, checkpoint), seed)
    upstream = Hubert(opened.card, opened.model)
    if opened.normalise is not None:
        upstream.normalise = opened.normalise
    return upstream


class Hubert(Upstream):
    """A transformers HuBERT as an upstream: `layers + 1` hidden states `[batch, frames, dim]` at 50 frames per second.

    Hidden state 0 is the input of the first transformer layer (after the positional convolution and LayerNorm), k
    the output of layer k, as in s3prl (`upstream/hubert/expert.py`).
    """

    family = "hubert"

    def __init__(self, card: Card, model: HubertModel) -> None:
        super().__init__(card)
        self.model = model
        # As fairseq's `task.normalize`, behind the published figures: Large was trained on waveforms of zero mean and
        # unit variance, Base was not, whatever a folder's preprocessor_config.json says.
        self.normalise = getattr(model.config, "feat_extract_norm", "layer") == "layer"  # data2vec-audio: always so
        extractor = model.feature_extractor
        if card.name != "hubert_padded" and Convolutions.fit(extractor):
            model.feature_extractor = Convolutions(extractor.conv_layers)
        self._positions = [PaddingZeroHook(layer) for layer in getattr(model.encoder.pos_conv_embed, "layers", ())]
        self.reentrant = not self._positions and isinstance(model.feature_extractor, Convolutions)

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """See `Upstream.forward`; a waveform shorter than one receptive field is a `UserError`."""
        self.refuse_short(wavs)
        if self.normalise:
            wavs = [nn.functional.layer_norm(wav, wav.shape) for wav in wavs]
        counts = [self.frames(len(wav)) for wav in wavs]
        for silencer in self._positions:
            silencer.valid = counts
        # No mask where no frame is padding: attention without one is faster, and equal.
        mask = _valid(wavs) if len(set(counts)) > 1 else None
        listed = isinstance(self.model.feature_extractor, Convolutions)
        return {"hidden_states": self.encode(wavs if listed else pad_sequence(wavs, batch_first=True), mask)}

    def encode(self, batch: Tensor | list[Tensor], mask: Tensor | None = None) -> list[Tensor]:
        """Return the hidden states `[batch, frames, dim]` of waveforms as they are, nothing normalised: a list of
        them [samples], or padded [batch, samples].

        `mask` [batch, samples] is 1 where a sample is valid; None: all are.
        """
        output = self.model(batch, attention_mask=mask, output_hidden_states=True)
        # The encoder's output in place of the last layer's: they differ in pre-norm networks, where a LayerNorm comes
        # in between (transformers 5 leaves it out), and a network cut before its first layer has nothing else.
        return [*output.hidden_states[:-1], output.last_hidden_state]

    def feature_settings(self) -> dict[str, Any]:
        """See `Upstream.feature_settings`."""
        invariant = isinstance(self.model.feature_extractor, Convolutions)
        return {**network_settings(self.model.config), "normalise": self.normalise, "batch_invariant": invariant}

    def feature_weights(self) -> dict[str, Tensor]:
        """See `Upstream.feature_weights`: transformers' names; the mask embedding serves pre-training alone."""
        return {name: value for name, value in self.model.state_dict().items() if name != "masked_spec_embed"}

    def frames(self, samples: int) -> int:
        """Return the frame count of the seven unpadded convolutions: floor((samples - 400) / 320) + 1 for HuBERT."""
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return max(0, samples)


def _valid(wavs: list[Tensor]) -> Tensor:
    """A mask [batch, samples], 1 where a sample is valid."""
    lengths = torch.tensor([len(wav) for wav in wavs], device=wavs[0].device)
    return (torch.arange(max(map(len, wavs)), device=lengths.device) < lengths[:, None]).long()


class ValidGroupNorm(nn.GroupNorm):
    """A GroupNorm with one group per channel whose statistics leave the padded frames out.

    `valid` is the number of valid frames of each utterance, known here and not read back from a device; set it before
    each forward pass.
    """

    valid: Sequence[int] | None = None

    @classmethod
    def like(cls, norm: nn.GroupNorm) -> ValidGroupNorm:
        """Return one with the weights of a plain GroupNorm."""
        new = cls(norm.num_groups, norm.num_channels, norm.eps)
        new.load_state_dict(norm.state_dict())
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [batch, channels, frames]; padded frames are normalised too, and mean nothing."""
        if self.valid is None or all(count == x.shape[-1] for count in self.valid):
            return super().forward(x)
        valid = torch.tensor(self.valid, device=x.device)
        kind, x = x.dtype, x.float()  # under autocast, sums over a minute of frames would lose themselves in 16 bits
        mask = (torch.arange(x.shape[-1], device=x.device) < valid[:, None])[:, None]  # [batch, 1, frames]
        count = valid[:, None, None].float()
        centred = x - (x * mask).sum(-1, keepdim=True) / count
        variance = (centred.square() * mask).sum(-1, keepdim=True) / count
        normal = centred * (variance + self.eps).rsqrt() * self.weight[:, None] + self.bias[:, None]
        return normal.to(kind)


class PaddingZeroHook:
    """Sets padded frames to zero before one of data2vec-audio's positional convolutions hears them.

    There are several in a row, each with a LayerNorm behind it, so that from the second on padding would be no silence.
    `valid` is the number of valid frames of each utterance; set it before each forward pass.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.valid: Sequence[int] | None = None
        layer.register_forward_pre_hook(lambda _, given: (self.silence(given[0]),))

    def silence(self, x: Tensor) -> Tensor:
        """Return [batch, channels, frames] with padded frames at zero."""
        if self.valid is None or all(count == x.shape[-1] for count in self.valid):
            return x
        valid = torch.tensor(self.valid, device=x.device)
        return x * (torch.arange(x.shape[-1], device=x.device) < valid[:, None])[:, None]
