"""Renames the weights of HuBERT-like encoders from fairseq's, s3prl's and torchaudio's names to transformers'."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from upstreams.loading.inert_values import printable

Weights = dict[str, Tensor]

POSITION = "encoder.pos_conv_embed.conv"
PROJECTION = "feature_projection.projection"

_SHARED = (
    (r"\.(?:weight_g|parametrizations\.weight\.original0)$", ".parametrizations.weight.original0"),
    (r"\.(?:weight_v|parametrizations\.weight\.original1)$", ".parametrizations.weight.original1"),
)
_FAIRSEQ = (
    (r"^(feature_extractor\.conv_layers\.\d+)\.0\.", r"\1.conv."),
    (r"^(feature_extractor\.conv_layers\.\d+)\.2(\.1)?\.", r"\1.layer_norm."),
    (r"^post_extract_proj\.", f"{PROJECTION}."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^mask_emb$", "masked_spec_embed"),
    (r"\.self_attn\.grep_a$", ".attention.gru_rel_pos_const"),
    (r"\.self_attn\.grep_linear\.", ".attention.gru_rel_pos_linear."),
    (r"\.self_attn\.relative_attention_bias\.", ".attention.rel_attn_embed."),
    (r"\.self_attn\.", ".attention."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
)
_PLAIN_POSITION = ((r"^encoder\.pos_conv\.0\.", f"{POSITION}."),)
_NORMED_POSITION = (
    (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.batch_norm."),
    (r"^encoder\.pos_conv\.1\.", f"{POSITION}."),
)
_TORCHAUDIO = (
    (r"^encoder\.feature_projection\.", "feature_projection."),
    (r"^encoder\.transformer\.", "encoder."),
)
_ENCODER = re.compile(r"^(?:feature_extractor|feature_projection|encoder)\.|^masked_spec_embed$")


def to_transformers(weights: Mapping[str, Tensor]) -> Weights:
    """Rename the weights of an encoder to transformers' names; those that are so named are unchanged.

    Weights beside the encoder are left out: heads of pre-training and of fine-tuning, quantizers. Convolutional
    positions whose weight normalisation was folded get it again.
    """
    rules: tuple[tuple[str, str], ...] = _SHARED
    if any(name.startswith("encoder.transformer.") for name in weights):
        rules = _TORCHAUDIO + _SHARED
    elif is_fairseq(weights):
        position = _NORMED_POSITION if "encoder.pos_conv.0.running_mean" in weights else _PLAIN_POSITION
        rules = position + _FAIRSEQ + _SHARED
    renamed = {}
    for name, tensor in weights.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)  # noqa: PLW2901
        if _ENCODER.match(name):
            renamed[name] = tensor
    return _with_weight_norm(renamed)


def is_fairseq(weights: Mapping[str, Tensor]) -> bool:
    """Return whether an encoder's weights have the names that fairseq and s3prl give them."""
    return "feature_extractor.conv_layers.0.0.weight" in weights


def left_out_parts(weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the names of the modules beside an encoder, which `to_transformers` leaves out, sorted."""
    fairseq = {"post_extract_proj", "layer_norm", "mask_emb"} if is_fairseq(weights) else set()
    parts = {printable(name.partition(".")[0]) for name in weights if not _ENCODER.match(name)}
    return tuple(sorted(parts - fairseq))


def _with_weight_norm(weights: Weights) -> Weights:
    """Split a folded weight [width, width / groups, kernel] into a norm for each tap of the kernel, and a direction."""
    normed = "encoder.pos_conv_embed.batch_norm.weight" in weights
    folded = weights.get(f"{POSITION}.weight")
    if folded is None or folded.ndim != 3 or normed:
        return weights
    folded = folded.float()
    rest = {name: tensor for name, tensor in weights.items() if name != f"{POSITION}.weight"}
    return {
        **rest,
        f"{POSITION}.parametrizations.weight.original0": folded.norm(dim=(0, 1), keepdim=True),
        f"{POSITION}.parametrizations.weight.original1": folded,
    }


def with_projection(weights: Weights, width: int, convolution_width: int) -> Weights:
    """Add the identity as projection, where fairseq needs none because both widths are the same."""
    norm = weights.get("encoder.layer_norm.weight")
    is_so = norm is not None and norm.shape == (width,)  # settings alone decide on no memory
    if f"{PROJECTION}.weight" in weights or width != convolution_width or not is_so:
        return weights
    return {**weights, f"{PROJECTION}.weight": torch.eye(width), f"{PROJECTION}.bias": torch.zeros(width)}
