"""The trained network: transformers' HuBERT, run as `upstreams.hubert` runs it, so that training equals evaluation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from superb_eval.data.padding import count_frames, valid_mask
from superb_eval.pretraining.batches import Batch
from superb_eval.pretraining.recipe import NetworkSettings
from upstreams.hubert import ValidGroupNorm, expects_normalised, zero_mean_unit_var_norm
from upstreams.loading import network_building
from upstreams.loading.padding_attention import use_padding_attention

if TYPE_CHECKING:
    from transformers import HubertModel


class FrontendOutput(NamedTuple):
    """Output of the convolutions: `features` [rows, frames, channels] and the mask `valid` [rows, frames].

    `full` is whether all frames are valid.
    """

    features: Tensor
    valid: Tensor
    full: bool


def create(settings: NetworkSettings, seed: int) -> HubertModel:
    """Return a network with seeded random weights whose GroupNorm leaves padding out.

    Raises:
        UserError: it can't be built, or is larger than allowed.
    """
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
    advice = "Change the sizes in -o network...."
    with seeded(seed), network_building.building("the recipe's section network", "a HuBERT", advice):
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


def frame_inputs(model: HubertModel, batch: Batch) -> dict[str, Tensor]:
    """Return the inputs of a batch that depend on its lengths alone, made on the host.

    `valid` [rows, frames] are the frames to attend to, with all of an empty row, whose softmax would be undefined
    without any; `counted` [rows, frames] those that count in a loss. `first_frames` [rows] are the valid frames of the
    first convolution, left out where none are padding.
    """
    layers = list(zip(model.config.conv_kernel, model.config.conv_stride, strict=True))
    samples, width = torch.tensor(batch.padded.lengths), torch.tensor(batch.wavs.shape[1])
    valid = valid_mask(count_frames(samples, layers), int(count_frames(width, layers)))
    inputs = {"valid": valid, "counted": valid & (torch.arange(len(valid)) < len(batch.lengths))[:, None]}
    first = count_frames(samples, layers[:1])
    return inputs if bool((first == count_frames(width, layers[:1])).all()) else {**inputs, "first_frames": first}


def run_frontend(model: HubertModel, batch: Batch) -> FrontendOutput:
    """Run the convolutions on a batch with its `frame_inputs`.

    Waveforms are normalised where `upstreams.hubert` normalises those of the trained encoder. No gradient is kept for
    frozen convolutions: transformers would ask for their input's.
    """
    norm = getattr(model.feature_extractor.conv_layers[0], "layer_norm", None)
    if isinstance(norm, ValidGroupNorm):
        norm.frame_counts = batch.inputs.get("first_frames")
    normalise = expects_normalised(model.config)
    wavs = zero_mean_unit_var_norm(batch.padded).samples if normalise else batch.wavs
    trained = any(weight.requires_grad for weight in model.feature_extractor.parameters())
    with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
        features = model.feature_extractor(wavs).transpose(1, 2)
    return FrontendOutput(features, batch.inputs["valid"], "first_frames" not in batch.inputs)


def encode(model: HubertModel, frontend: FrontendOutput, masked: Tensor | None = None) -> Tensor:
    """Run projection and transformer: [rows, frames, dim]; `masked` [rows, frames] get the mask vector."""
    return encode_layers(model, frontend, masked, (model.config.num_hidden_layers,))[0]


def encode_layers(
    model: HubertModel, frontend: FrontendOutput, masked: Tensor | None, layers: Sequence[int]
) -> list[Tensor]:
    """Run projection and transformer: the outputs [rows, frames, dim] of some of its layers, counted from 1."""
    hidden = model.feature_projection(frontend.features)
    if masked is not None:
        hidden = torch.where(masked[..., None], model.masked_spec_embed.to(hidden.dtype), hidden)
    mask = None if frontend.full else frontend.valid
    last = model.config.num_hidden_layers
    with _layer_outputs(model, wanted=set(layers) - {last}) as outputs:
        outputs[last] = model.encoder(hidden, attention_mask=mask).last_hidden_state
    # A layer that layer drop skips hands on what came before it.
    return [outputs[max(below for below in outputs if below <= layer)] for layer in layers]


@contextmanager
def _layer_outputs(model: HubertModel, wanted: Collection[int]) -> Iterator[dict[int, Tensor]]:
    """Yield a dictionary that the outputs of the transformer's layers enter as they run: all up to the last wanted."""
    outputs: dict[int, Tensor] = {}
    stages = [model.encoder.dropout, *model.encoder.layers][: max(wanted, default=-1) + 1]
    hooks = [
        stage.register_forward_hook(lambda _, __, output, number=number: outputs.update({number: output}))
        for number, stage in enumerate(stages)
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def sum_of_mean_squares(values: Tensor, valid: Tensor) -> Tensor:
    """Return the sum over valid frames of the mean square of their values [rows, frames, dim]."""
    return (values.float().square().mean(-1) * valid).sum()
