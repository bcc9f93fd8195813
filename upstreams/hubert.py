"""HuBERT (Hsu et al., arXiv 2106.07447) on the transformers network, with features that don't depend on the batch.

HuBERT Base's first convolution is followed by a GroupNorm with one group per channel, whose statistics run over time.
s3prl, transformers and torchaudio let them run over the padding too, so that an utterance's features change with its
neighbours (by 56 % for 1.3 s of speech padded by 8 s, random weights). Here they run over each utterance's own
frames: a batch equals its members one by one. `hubert_padded` keeps the published behaviour, for comparison.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from superb_eval.data.padding import PaddedWavs, count_frames, lengths_on, pad_wavs, valid_mask
from upstreams.base import Card, Upstream, of_given_weights
from upstreams.loading.conv_frontend import ConvFrontend
from upstreams.loading.load_weights import load_model, shipped_weights
from upstreams.loading.network_settings import network_settings
from upstreams.loading.padding_attention import use_padding_attention, use_valid_mask
from upstreams.loading.positional_conv import PositionalConv

if TYPE_CHECKING:
    from transformers import HubertModel, PretrainedConfig

HUB = {"hubert": "facebook/hubert-base-ls960", "hubert_base": "facebook/hubert-base-ls960"}
"""The hub id of a name's weights, downloaded when the address gives none."""

CONFIGS: dict[str, dict[str, Any]] = {
    "hubert_mini": {
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "conv_dim": (64, 64, 128, 128, 192, 256, 256),
        "num_conv_pos_embeddings": 64,
    },
    "hubert_nano": {
        "hidden_size": 192,
        "num_attention_heads": 4,
        "intermediate_size": 768,
        "conv_dim": (32, 64, 128, 128, 128, 192, 192),
        "num_conv_pos_embeddings": 64,
        "num_hidden_layers": 2,
    },
}
"""What differs from HuBERT Base (`transformers.HubertConfig`'s defaults), by name."""

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
    "licence": "Apache-2.0",
    "source": "this repository",
    "training_data": "see its model card, upstreams/weights/hubert_mini/README.md",
}

CARDS = (
    Card(name="hubert", summary="HuBERT Base, batch-invariant", historical="hubert_padded", **_BASE),  # type: ignore[arg-type]
    Card(name="hubert_base", summary="alias of hubert", historical="hubert_padded", **_BASE),  # type: ignore[arg-type]
    Card(
        name="hubert_padded",
        summary="HuBERT Base, first GroupNorm over the padded batch, as published",
        notes=("an utterance's features depend on the rest of its batch",),
        **_BASE,  # type: ignore[arg-type]
    ),
    Card(
        name="hubert_mini",
        summary="12 layers x 256",
        layers=13,
        width=256,
        parameters=10_196_544,
        **_SMALL,  # type: ignore[arg-type]
    ),
    Card(
        name="hubert_nano",
        summary="2 layers x 192, for tests",
        layers=3,
        width=192,
        parameters=1_327_744,
        **{**_SMALL, "training_data": "none: for tests, use @random"},  # type: ignore[arg-type]
    ),
)


def weights_source(card: Card, checkpoint: str | None) -> str | None:
    """Return the file, folder or hub id that a name's weights are loaded from; None: it has none."""
    name = card.name.removesuffix("_padded")
    return checkpoint or shipped_weights(name) or HUB.get(name)


def build(card: Card, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open HuBERT with seeded random weights, from a file, a folder in transformers' layout, or from the hub.

    Raises:
        UserError: there are no weights there, they don't fit, or the file would run code.
    """
    config = CONFIGS.get(card.name.removesuffix("_padded"), {})
    loaded = load_model(of_given_weights(card, checkpoint), config, weights_source(card, checkpoint), seed)
    upstream = Hubert(loaded.card, loaded.model)
    if loaded.normalise is not None:
        upstream.normalise = loaded.normalise
    return upstream


class Hubert(Upstream):
    """A transformers HuBERT as an upstream: `layers + 1` hidden states `[batch, frames, dim]` at 50 frames per second.

    Hidden state 0 is the input of the first transformer layer (after the positional convolution and LayerNorm), k
    the output of layer k, as in s3prl (`upstream/hubert/expert.py`).
    """

    family = "hubert"

    def __init__(self, card: Card, model: HubertModel) -> None:
        super().__init__(card)
        use_padding_attention(model)
        use_valid_mask(model)
        self.model = model
        self.normalise = expects_normalised(model.config)
        if PositionalConv.supports(model.encoder.pos_conv_embed):
            model.encoder.pos_conv_embed = PositionalConv(model.encoder.pos_conv_embed)
        extractor = model.feature_extractor
        if card.name != "hubert_padded" and ConvFrontend.supports(extractor):
            model.feature_extractor = ConvFrontend(extractor.conv_layers)
        self._padding_hooks = [PaddingZeroHook(layer) for layer in _convolutions_of_nonzero_padding(model)]
        invariant = isinstance(model.feature_extractor, ConvFrontend)
        self.reentrant = not self._padding_hooks and invariant
        self.padding_invariant = invariant and type(self).forward is Hubert.forward
        if _has_batch_norm(model):  # its batches leaked padding in version 1
            self.card = replace(card, features_version=card.features_version + 1)

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """See `Upstream.forward`; a waveform shorter than one receptive field is a `UserError`."""
        return self.forward_padded(pad_wavs(wavs))

    def forward_padded(self, batch: PaddedWavs) -> dict[str, list[Tensor]]:
        """See `Upstream.forward_padded`."""
        self.refuse_short(batch)
        if self.normalise:
            batch = zero_mean_unit_var_norm(batch)
        samples = batch.samples
        counts, frames = [self.frames(length) for length in batch.lengths], self.frames(samples.shape[1])
        takes_padding = isinstance(self.model.feature_extractor, ConvFrontend)
        waveforms = batch if takes_padding else samples
        if set(counts) == {frames}:  # without a mask attention is faster, with identical results
            return {"hidden_states": self.encode(waveforms)}
        try:
            valid = valid_mask(lengths_on(samples.device, counts), frames) if self._padding_hooks else None
            for hook in self._padding_hooks:
                hook.valid = valid
            return {"hidden_states": self.encode(waveforms, lengths_on(samples.device, batch.lengths))}
        finally:  # `encode` may be called by itself
            for hook in self._padding_hooks:
                hook.valid = None

    def encode(self, waveforms: Tensor | PaddedWavs, lengths: Tensor | None = None) -> list[Tensor]:
        """Return the hidden states `[batch, frames, dim]` of waveforms [batch, samples], which are not normalised here.

        `lengths` [batch] are their samples, on their device; None: no frame is padded.
        """
        # transformers adds up a mask of samples for its lengths: those are their own sum.
        mask = None if lengths is None else lengths[:, None]
        output = self.model(waveforms, attention_mask=mask, output_hidden_states=True)
        # The encoder's output in place of the last layer's: they differ in pre-norm networks, where a LayerNorm comes
        # in between (transformers 5 leaves it out), and a network cut before its first layer has nothing else.
        return [*output.hidden_states[:-1], output.last_hidden_state]

    def feature_settings(self) -> dict[str, Any]:
        """See `Upstream.feature_settings`."""
        invariant = isinstance(self.model.feature_extractor, ConvFrontend)
        return {**network_settings(self.model.config), "normalise": self.normalise, "batch_invariant": invariant}

    def feature_weights(self) -> dict[str, Tensor]:
        """See `Upstream.feature_weights`: transformers' names; the mask embedding serves pre-training alone."""
        return {name: value for name, value in self.model.state_dict().items() if name != "masked_spec_embed"}

    def frames(self, samples: int) -> int:
        """Return the frame count of the seven unpadded convolutions: floor((samples - 400) / 320) + 1 for HuBERT."""
        config = self.model.config
        return max(0, count_frames(samples, list(zip(config.conv_kernel, config.conv_stride, strict=True))))


def _convolutions_of_nonzero_padding(model: HubertModel) -> list[nn.Module]:
    """Return the positional convolutions whose input is no longer zero where frames are padded."""
    embedding: Any = model.encoder.pos_conv_embed
    return [*getattr(embedding, "layers", ()), *([embedding.conv] if _has_batch_norm(model) else ())]


def _has_batch_norm(model: HubertModel) -> bool:
    """Return whether the positional convolution follows a BatchNorm (`conv_pos_batch_norm`), as in mHuBERT-147."""
    return getattr(model.encoder.pos_conv_embed, "batch_norm", None) is not None


def expects_normalised(config: PretrainedConfig) -> bool:
    """Return whether a network of transformers' configuration is trained and evaluated on normalised waveforms.

    As fairseq's `task.normalize`, behind the published figures: Large was trained on waveforms of zero mean and unit
    variance, Base wasn't, whatever a folder's preprocessor_config.json states.
    """
    return bool(getattr(config, "feat_extract_norm", "layer") == "layer")  # data2vec-audio: always so


def zero_mean_unit_var_norm(batch: PaddedWavs) -> PaddedWavs:
    """Return waveforms with zero mean and unit variance (plus 1e-5, as fairseq's), each over its own samples.

    `batch.samples` is [batch, samples]; padding stays zero, and nothing is read from the device.
    """
    samples, width = batch.samples, batch.samples.shape[1]
    if min(batch.lengths) == width:
        return PaddedWavs(nn.functional.layer_norm(samples, (width,)), batch.lengths)
    lengths = lengths_on(samples.device, batch.lengths)
    valid, count = valid_mask(lengths, width), lengths[:, None]
    centred = torch.where(valid, samples - samples.sum(dim=1, keepdim=True) / count, 0.0)
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return PaddedWavs(centred * (variance + 1e-5).rsqrt(), batch.lengths)


class ValidGroupNorm(nn.GroupNorm):
    """A GroupNorm with one group per channel whose statistics leave the padded frames out.

    `frame_counts` [batch] are the valid frames of each utterance, on its device; set it before each forward pass. None:
    no frame is padded.
    """

    frame_counts: Tensor | None = None

    @classmethod
    def from_group_norm(cls, norm: nn.GroupNorm) -> ValidGroupNorm:
        """Return a `ValidGroupNorm` with the weights of a plain GroupNorm."""
        new = cls(norm.num_groups, norm.num_channels, norm.eps)
        new.load_state_dict(norm.state_dict())
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [batch, channels, frames]; padded frames are normalised too, but carry no information."""
        lengths = self.frame_counts
        if lengths is None:
            return super().forward(x)
        dtype, x = x.dtype, x.float()  # under autocast, 16 bits are too few for sums over a minute of frames
        mask = valid_mask(lengths, x.shape[-1])[:, None]  # [batch, 1, frames]
        count = lengths[:, None, None].float()
        centred = x - (x * mask).sum(-1, keepdim=True) / count
        variance = (centred.square() * mask).sum(-1, keepdim=True) / count
        normalised = centred * (variance + self.eps).rsqrt() * self.weight[:, None] + self.bias[:, None]
        return normalised.to(dtype)


class PaddingZeroHook:
    """Sets padded frames to zero at the input of a positional convolution that follows a normalisation.

    data2vec-audio has several such convolutions in a row, each followed by a LayerNorm, so that from the second on
    padded frames wouldn't be zero; mHuBERT-147 (`conv_pos_batch_norm`) has a BatchNorm before its single one.
    `valid` [batch, frames] is true on valid frames; set it before each forward pass. None: no frame is padded.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.valid: Tensor | None = None
        layer.register_forward_pre_hook(lambda _, inputs: (self.zero_padding(inputs[0]),))

    def zero_padding(self, x: Tensor) -> Tensor:
        """Return [batch, channels, frames] with padded frames at zero."""
        return x if self.valid is None else x * self.valid[:, None]
