"""The trained network: transformers' HuBERT, run as `upstreams.hubert` runs it, so that training equals evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from superb_eval.data.padding import valid_mask
from superb_eval.pretraining.data import Batch
from superb_eval.pretraining.recipe import NetworkSettings
from upstreams.hubert import ValidGroupNorm
from upstreams.loading.padding_attention import use_padding_attention

if TYPE_CHECKING:
    from transformers import HubertModel

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
"""Of HuBERT's convolutions; the product of the strides is the stride of a frame, 320 samples."""


class FrontendOutput(NamedTuple):
    """Output of the convolutions: `features` [batch, frames, channels] and the mask `valid` [batch, frames].

    `lengths` are the valid frames of each clip, and `indices` [valid frames] their positions in the flattened batch,
    computed without a device sync.
    """

    features: Tensor
    valid: Tensor
    lengths: list[int]
    indices: Tensor

    def select_valid(self, values: Tensor) -> Tensor:
        """Return the valid ones of values [batch, frames, ...]: [valid frames, ...]."""
        return values.flatten(0, 1).index_select(0, self.indices)


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
        model = _normalise_valid_frames(HubertModel(config))
    use_padding_attention(model)
    return model


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make weights that are initialised while the context lasts depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _normalise_valid_frames(model: HubertModel) -> HubertModel:
    """Make the first GroupNorm run over each clip's valid frames, as `upstreams.hubert.Hubert` does."""
    first = model.feature_extractor.conv_layers[0]
    if type(getattr(first, "layer_norm", None)) is nn.GroupNorm:
        first.layer_norm = ValidGroupNorm.from_group_norm(first.layer_norm)
    return model


def frame_count(samples: int) -> int:
    """Return the number of frames that the convolutions output for a number of samples."""
    for kernel, stride in zip(KERNELS, STRIDES, strict=True):
        samples = (samples - kernel) // stride + 1
    return max(0, samples)


def run_frontend(model: HubertModel, batch: Batch) -> FrontendOutput:
    """Run the convolutions on a batch."""
    lengths, config = batch.lengths, model.config
    norm = getattr(model.feature_extractor.conv_layers[0], "layer_norm", None)
    if isinstance(norm, ValidGroupNorm):
        norm.frame_counts = ((lengths - config.conv_kernel[0]) // config.conv_stride[0] + 1).tolist()
    features = model.feature_extractor(batch.wavs).transpose(1, 2)
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        lengths = (lengths - kernel) // stride + 1
    valid = valid_mask(lengths, features.shape[1])
    indices = valid.flatten().nonzero()[:, 0]
    return FrontendOutput(features, valid.to(features.device), lengths.tolist(), indices.to(features.device))


def encode(model: HubertModel, frontend: FrontendOutput, masked: Tensor | None = None) -> Tensor:
    """Run projection and transformer: [batch, frames, dim]; `masked` [batch, frames] get the mask vector."""
    hidden = model.feature_projection(frontend.features)
    if masked is not None:
        hidden = torch.where(masked[..., None], model.masked_spec_embed.to(hidden.dtype), hidden)
    output: Tensor = model.encoder(hidden, attention_mask=frontend.valid).last_hidden_state
    return output


def sum_of_mean_squares(values: Tensor, valid: Tensor) -> Tensor:
    """Return the sum over valid frames of the mean square of their values [batch, frames, dim]."""
    return (values.float().square().mean(-1) * valid).sum()
