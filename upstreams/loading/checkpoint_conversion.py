"""Converts checkpoints of HuBERT-like networks from other libraries' layouts to transformers' `HubertModel`.

Supported: s3prl's distiller checkpoints (`upstream/distiller`, such as distilhubert_ls960_4-8-12.ckpt), its converted
HuBERT files (`upstream/hubert/convert.py`), and state dicts of torchaudio's bundles (`torchaudio.models.hubert_base`).
The layout is recognised by the file's keys.
"""

from __future__ import annotations

import argparse
import ast
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from superb_eval.errors import UserError
from upstreams.loading.safe_pickle import unsafe_pickle_error

Weights = dict[str, Tensor]

_CONV = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
"""s3prl's default: (channels, kernel, stride) of each convolution."""

_SHARED = (
    (r"^(.*\.)?encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
    (r"\.(?:weight_g|parametrizations\.weight\.original0)$", ".parametrizations.weight.original0"),
    (r"\.(?:weight_v|parametrizations\.weight\.original1)$", ".parametrizations.weight.original1"),
)
_FAIRSEQ = (
    (r"^(feature_extractor\.conv_layers\.\d+)\.0\.", r"\1.conv."),
    (r"^(feature_extractor\.conv_layers\.\d+)\.2(\.1)?\.", r"\1.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^mask_emb$", "masked_spec_embed"),
    (r"\.self_attn\.", ".attention."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
)
_TORCHAUDIO = (
    (r"^encoder\.feature_projection\.", "feature_projection."),
    (r"^encoder\.transformer\.", "encoder."),
)
_PRETRAINING_HEADS = re.compile(
    r"^(final_proj|label_embs_concat|output_layer|target_glu|aux|logit_generator|mask_generator)\b"
)
"""Weights that the features don't depend on."""


@dataclass(frozen=True)
class ConvertedCheckpoint:
    """A network read from another library's file."""

    layout: str
    """The name of the layout, for messages."""
    config: dict[str, Any]
    """Arguments of `transformers.HubertConfig`."""
    weights: Weights
    """Of the encoder, as `transformers.HubertModel` names them."""
    normalise: bool | None = None
    """Whether waveforms are normalised to zero mean and unit variance; None: the file doesn't state it."""
    heads: Weights | None = None
    """Of `upstreams.distilhubert.Heads`; None: the file has none."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of weights without ever running code from it; a plain `argparse.Namespace` is allowed.

    Raises:
        UserError: the file is damaged, or a pickle that needs more than tensors and plain values.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            # s3prl's checkpoints store the training command as one; it holds plain values.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        advice = "Save the weights alone as .safetensors where you trust it, and give that file."
        raise unsafe_pickle_error(path, advice) from error
    except Exception as error:  # a damaged file raises various errors
        raise UserError(f"{path}: not readable as weights ({error!r}). Is the file complete?") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: isn't a plain state dict (names to tensors). Save `model.state_dict()` alone.")
    return content


def convert(content: Mapping[str, Any], source: object) -> ConvertedCheckpoint | None:
    """Return the network in another library's layout, or None where the layout isn't recognised.

    Raises:
        UserError: the layout is known, but transformers' HuBERT doesn't support its settings.
    """
    if {"Config", "Distiller"} <= content.keys():
        return _convert_distiller(content, source)
    if {"task_cfg", "model_cfg", "model_weight"} <= content.keys():
        return _convert_s3prl_hubert(content, source)
    if "encoder.transformer.layers.0.attention.k_proj.weight" in content:
        return _convert_torchaudio(content, source)
    return None


def to_transformers(weights: Mapping[str, Tensor]) -> Weights:
    """Rename the weights of an encoder from fairseq's, s3prl's or torchaudio's names to transformers'.

    Pre-training heads are left out; names that are transformers' own already are unchanged.
    """
    rules: tuple[tuple[str, str], ...] = _SHARED
    if any(".transformer." in name for name in weights):
        rules = _TORCHAUDIO + _SHARED
    elif any(".fc1." in name for name in weights):
        rules = _FAIRSEQ + _SHARED
    renamed = {}
    for name, tensor in weights.items():
        if not _PRETRAINING_HEADS.match(name):
            for pattern, new in rules:
                name = re.sub(pattern, new, name)  # noqa: PLW2901
            renamed[name] = tensor
    return renamed


def _convert_distiller(content: Mapping[str, Any], source: object) -> ConvertedCheckpoint:
    settings = dict(content["Config"].get("distiller", {}))
    conv = str(settings.get("extractor_conv_feature_layers", _CONV))
    # The defaults of s3prl's `DistillerConfig`, where they differ from its HuBERT's.
    config = _fairseq_config({"encoder_layers": 1, "activation_dropout": 0.1, **settings}, source, conv)
    weights = content["Distiller"]
    config["feat_proj_layer_norm"] = False
    heads = _heads(weights)
    return ConvertedCheckpoint("s3prl's distiller", config, to_transformers(weights), normalise=False, heads=heads)


def _heads(weights: Mapping[str, Tensor]) -> Weights | None:
    """Return the weights of `upstreams.distilhubert.Heads`, from an output layer of s3prl's form `expand-last`."""
    if "output_layer.0.weight" not in weights:
        return None
    if "output_layer.2.layer.weight" in weights:  # a single head is a plain linear layer in s3prl
        split = weights["output_layer.2.layer.weight"].T[None], weights["output_layer.2.layer.bias"][None]
    else:
        split = weights["output_layer.2.weight"], weights["output_layer.2.bias"].flatten(0, 2)
    return {
        "shared.weight": weights["output_layer.0.weight"],
        "shared.bias": weights["output_layer.0.bias"],
        "weight": split[0].contiguous(),
        "bias": split[1].contiguous(),
    }


def _convert_s3prl_hubert(content: Mapping[str, Any], source: object) -> ConvertedCheckpoint:
    settings = content["model_cfg"]
    config = _fairseq_config(settings, source, str(settings.get("conv_feature_layers", _CONV)))
    normalise = bool(content["task_cfg"].get("normalize", False))
    return ConvertedCheckpoint("s3prl's converted HuBERT", config, to_transformers(content["model_weight"]), normalise)


def _fairseq_config(settings: Mapping[str, Any], source: object, conv: str) -> dict[str, Any]:
    """Return transformers' settings for fairseq's, which s3prl uses too."""
    required = {"activation_fn": "gelu", "layer_type": "transformer", "attention_type": "original", "attn_type": ""}
    for key, supported in required.items():
        if settings.get(key, supported) != supported:
            raise UserError(
                f"{source}: its {key} is '{settings[key]}', which only s3prl supports: load it with s3prl:NAME."
            )
    channels, kernels, strides = zip(*_conv_layers(conv, source), strict=True)
    return {
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "conv_bias": bool(settings.get("conv_bias", False)),
        "feat_extract_norm": "layer" if settings.get("extractor_mode") == "layer_norm" else "group",
        "do_stable_layer_norm": bool(settings.get("layer_norm_first", False)),
        "num_hidden_layers": int(settings.get("encoder_layers", 12)),
        "hidden_size": int(settings.get("encoder_embed_dim", 768)),
        "intermediate_size": int(settings.get("encoder_ffn_embed_dim", 3072)),
        "num_attention_heads": int(settings.get("encoder_attention_heads", 12)),
        "num_conv_pos_embeddings": int(settings.get("conv_pos", 128)),
        "num_conv_pos_embedding_groups": int(settings.get("conv_pos_groups", 16)),
        "hidden_dropout": float(settings.get("dropout", 0.1)),
        "attention_dropout": float(settings.get("attention_dropout", 0.1)),
        "activation_dropout": float(settings.get("activation_dropout", 0.0)),
    }


def _conv_layers(text: str, source: object) -> list[tuple[int, int, int]]:
    """Return the value of `[(512, 10, 5)] + [(512, 3, 2)] * 4`, which fairseq passes to `eval`."""

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
            left, right = value(node.left), value(node.right)
            return left + right if isinstance(node.op, ast.Add) else left * right
        return ast.literal_eval(node)

    try:
        layers = value(ast.parse(text, mode="eval").body)
        return [(int(channels), int(kernel), int(stride)) for channels, kernel, stride in layers]
    except (ValueError, TypeError, SyntaxError) as error:
        raise UserError(f"{source}: its convolutions are '{text[:60]}'. Expected a list such as {_CONV}.") from error


def _convert_torchaudio(content: Mapping[str, Any], source: object) -> ConvertedCheckpoint:
    """Torchaudio's files hold no settings: sizes are inferred from the weights, the rest is as in its bundles."""
    weights = to_transformers(content)
    if len(_conv_weights(weights)) != 7:
        raise UserError(f"{source}: doesn't hold 7 convolutions, as torchaudio's HuBERT bundles do. Is it a HuBERT?")
    config = infer_config(weights)
    # Only its Large and XLarge bundles have layer norms in every convolution, are pre-norm, and take normalised waves.
    config["do_stable_layer_norm"] = layer_norms = config["feat_extract_norm"] == "layer"
    return ConvertedCheckpoint("torchaudio's", config, weights, normalise=layer_norms)


def infer_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of `transformers.HubertConfig` that the weights of an encoder determine.

    The number of attention heads isn't determined by them: it is 16 from a width of 1024 on, else width / 64, as in
    every published HuBERT. Strides are HuBERT's.
    """
    convolutions = _conv_weights(weights)
    position = weights["encoder.pos_conv_embed.conv.parametrizations.weight.original1"]  # [width, width/groups, kernel]
    width = len(position)
    layer_norms = "feature_extractor.conv_layers.1.layer_norm.weight" in weights
    return {
        "conv_dim": [len(w) for w in convolutions],
        "conv_kernel": [w.shape[-1] for w in convolutions],
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in weights,
        "feat_extract_norm": "layer" if layer_norms else "group",
        "feat_proj_layer_norm": "feature_projection.layer_norm.weight" in weights,
        "num_hidden_layers": count_layers(weights),
        "hidden_size": width,
        "intermediate_size": len(weights["encoder.layers.0.feed_forward.intermediate_dense.weight"]),
        "num_attention_heads": 16 if width >= 1024 else max(1, width // 64),
        "num_conv_pos_embeddings": position.shape[-1],
        "num_conv_pos_embedding_groups": width // position.shape[1],
    }


def count_layers(weights: Mapping[str, Tensor]) -> int:
    """Return the number of transformer layers in the weights of an encoder."""
    return len({name.split(".")[2] for name in weights if name.startswith("encoder.layers.")})


def _conv_weights(weights: Mapping[str, Tensor]) -> list[Tensor]:
    names = (f"feature_extractor.conv_layers.{k}.conv.weight" for k in range(len(weights)))
    return [weights[name] for name in names if name in weights]
