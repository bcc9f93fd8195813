"""The network that is trained: transformers' HuBERT, as `upstreams.hubert` runs it, so that the two hear the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from superb_eval.pretraining.data import Batch
from superb_eval.pretraining.recipe import NetworkSettings
from upstreams.hubert import ValidGroupNorm

if TYPE_CHECKING:
    from transformers import HubertModel

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
"""Of HuBERT's convolutions; their product is the stride of a frame, 320 samples."""


class Front(NamedTuple):
    """What the convolutions gave: `output` [batch, frames, channels], and which frames are `valid` [batch, frames].

    `counts` is how many they are of each clip, and `places` [valid frames] where they stand among all frames of the
    batch in a row: known without asking the device.
    """

    output: Tensor
    valid: Tensor
    counts: list[int]
    places: Tensor

    def alone(self, values: Tensor) -> Tensor:
        """Return the valid ones of values [batch, frames, ...]: [valid frames, ...]."""
        return values.flatten(0, 1).index_select(0, self.places)


def create(settings: NetworkSettings, seed: int) -> HubertModel:
    """Return a network with seeded random weights whose GroupNorm leaves padding out."""
    from transformers import HubertConfig, HubertModel

    config = HubertConfig(
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=settings.feed_forward,
        conv_dim=settings.conv,
        hidden_dropout=settings.dropout,
        attention_dropout=settings.dropout,
        feat_proj_dropout=settings.dropout,
        activation_dropout=0.0,
        layerdrop=settings.layerdrop,
        **settings.more,
    )
    with seeded(seed):
        return unpadded(HubertModel(config))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let weights that are initialised while the context lasts depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def unpadded(model: HubertModel) -> HubertModel:
    """Let the first GroupNorm run over each clip's own frames, as `upstreams.hubert.Hubert` does."""
    first = model.feature_extractor.conv_layers[0]
    if type(getattr(first, "layer_norm", None)) is nn.GroupNorm:
        first.layer_norm = ValidGroupNorm.like(first.layer_norm)
    return model


def frames(samples: int) -> int:
    """Return how many frames the convolutions give for so many samples."""
    for kernel, stride in zip(KERNELS, STRIDES, strict=True):
        samples = (samples - kernel) // stride + 1
    return max(0, samples)


def front(model: HubertModel, batch: Batch) -> Front:
    """Run the convolutions."""
    lengths, config = batch.lengths, model.config
    norm = getattr(model.feature_extractor.conv_layers[0], "layer_norm", None)
    if isinstance(norm, ValidGroupNorm):
        norm.valid = ((lengths - config.conv_kernel[0]) // config.conv_stride[0] + 1).tolist()
    output = model.feature_extractor(batch.wavs).transpose(1, 2)
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        lengths = (lengths - kernel) // stride + 1
    valid = torch.arange(output.shape[1]) < lengths[:, None]
    places = valid.flatten().nonzero()[:, 0]
    return Front(output, valid.to(output.device), lengths.tolist(), places.to(output.device))


def encode(model: HubertModel, heard: Front, masked: Tensor | None = None) -> Tensor:
    """Run projection and transformer, with `masked` [batch, frames] frames replaced: [batch, frames, dim]."""
    hidden = model.feature_projection(heard.output)
    if masked is not None:
        hidden = torch.where(masked[..., None], model.masked_spec_embed.to(hidden.dtype), hidden)
    output: Tensor = model.encoder(hidden, attention_mask=heard.valid).last_hidden_state
    return output


def masked_mean_square(values: Tensor, valid: Tensor) -> Tensor:
    """Return the sum over valid frames of the mean square of their values [batch, frames, dim]."""
    return (values.float().square().mean(-1) * valid).sum()
