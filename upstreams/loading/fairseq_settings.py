"""Reads the settings in fairseq's checkpoints, and in those of s3prl and WavLM, as transformers' configurations.

fairseq stores them as a `Namespace` (`args`, until 0.10), as omegaconf's `DictConfig` or as a dictionary (`cfg`). A
setting that changes the hidden states and that transformers' networks don't have is refused by its name and value.
`required_seq_len_multiple` isn't one: fairseq masks the frames that it adds, and cuts them off again.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from superb_eval.errors import UserError
from upstreams.loading.inert_values import InertObject, shown

CONVOLUTIONS = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
"""fairseq's default: (channels, kernel, stride) of each convolution."""

_MAX_CONVOLUTIONS = 64

_ONLY_FAIRSEQ = {
    "activation_fn": "gelu",
    "layer_type": "transformer",
    "attention_type": "original",
    "attn_type": "",
    "pos_enc_type": "abs",
    "pos_conv_depth": 1,
    "crop_seq_to_multiple": 1,
    "quantize_input": False,
    "conv_type": "default",
}
"""Settings that change the network, with the one value that is supported."""


@dataclass(frozen=True)
class FairseqSettings:
    """Settings of an encoder, by fairseq's names."""

    model: dict[str, Any]
    normalise: bool
    """Whether waveforms are normalised to zero mean and unit variance."""
    kind: str
    """fairseq's name of the network, such as hubert or wav2vec2; empty where it isn't stated."""
    fine_tuned: bool = False


def plain(value: Any) -> Any:
    """Return dictionaries, lists and plain values for omegaconf's containers, Namespaces and enumerations.

    Other objects of other libraries become None. What holds itself is returned as such, so that nothing is endless.
    """
    return _plain(value, {}, 0)


def _plain(value: Any, known: dict[int, Any], depth: int) -> Any:
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, InertObject):
        value = _inner(value)
    if not isinstance(value, dict | list | tuple) or depth > 40:
        return value if isinstance(value, str | int | float | bool) else None
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, dict):
        mapping: dict[str, Any] = {}
        known[id(value)] = mapping
        mapping.update({key: _plain(item, known, depth + 1) for key, item in value.items() if isinstance(key, str)})
        return mapping
    items: list[Any] = []
    known[id(value)] = items
    items += [_plain(item, known, depth + 1) for item in value]
    return items


def _inner(value: Any) -> Any:
    """Return what an object stands for: a container's content, a node's value, an enumeration's value."""
    for _ in range(8):  # a DictConfig's content is a dictionary of nodes; an AnyNode's may be an enumeration
        if not isinstance(value, InertObject):
            break
        state = value.state if isinstance(value.state, dict) else {}
        if "_content" in state or "_val" in state:
            value = state.get("_content", state.get("_val"))
        elif state:  # a Namespace or a dataclass
            return state
        else:
            value = value.arguments[0] if len(value.arguments) == 1 else None
    return value


def find_settings(content: Mapping[Any, Any], source: object) -> FairseqSettings | None:
    """Return the settings in the content of a file of fairseq, WavLM or s3prl; None: it has none.

    Raises:
        UserError: whether waveforms are normalised is neither true nor false; `source` is the file.
    """
    if content.get("cfg") is not None or content.get("args") is not None:
        stored = plain(content["cfg"] if content.get("cfg") is not None else content["args"])
        return _nested(stored, source) if isinstance(stored, dict) else None
    if "model_cfg" in content and "model_weight" in content:
        task = plain(content.get("task_cfg"))
        kind = "hubert" if "dictionaries_symbols" in content else "wav2vec2"
        return FairseqSettings(plain(content["model_cfg"]) or {}, flag(task or {}, "normalize", source), kind)
    return None


def _nested(stored: dict[str, Any], source: object, depth: int = 0) -> FairseqSettings | None:
    """Return the settings of a network: in `model` beside those of its task, or all in one."""
    if depth > 4:
        raise UserError(f"{source}: its settings are nested in w2v_args without an end. Is the file intact?")
    model = stored["model"] if isinstance(stored.get("model"), dict) else stored
    task = stored["task"] if isinstance(stored.get("task"), dict) else stored
    inner = model.get("w2v_args")
    if isinstance(inner, dict):  # fine-tuned: the encoder's own settings, as it was pre-trained
        found = _nested(inner, source, depth + 1)
        if found is not None:
            stated = found.normalise or flag(task, "normalize", source)
            return FairseqSettings(found.model, stated, found.kind, fine_tuned=True)
    if not any(key in model for key in ("encoder_layers", "conv_feature_layers", "extractor_mode", "_name", "arch")):
        return None
    kind = next((model[key] for key in ("_name", "arch") if isinstance(model.get(key), str)), "")
    return FairseqSettings(model, flag(task, "normalize", source), kind)


def flag(settings: Mapping[str, Any], name: str, source: object) -> bool:
    """Return a switch, off where it is absent.

    Raises:
        UserError: it is neither true nor false.
    """
    value = settings.get(name)
    if value not in (None, False, True):
        raise UserError(f"{source}: its {name} is '{shown(value)}'. Expected true or false.")
    return bool(value)


def to_config(settings: Mapping[str, Any], source: object, convolutions: object = None) -> dict[str, Any]:
    """Return the arguments of `transformers.HubertConfig` for fairseq's settings.

    Args:
        settings: by fairseq's names; its defaults stand for absent ones.
        source: the file, for errors.
        convolutions: their expression, where it has another name than `conv_feature_layers`.

    Raises:
        UserError: a setting that transformers' networks don't have, or a value that is none.
    """
    for key, supported in _ONLY_FAIRSEQ.items():
        value = settings.get(key)
        if value is not None and value != supported:
            raise UserError(
                f"{source}: its {key} is '{shown(value)}', and only '{supported}' is supported in this layout. Load it "
                "with hf:FOLDER, s3prl:NAME or your own FILE.py:Class."
            )
    mode = settings.get("extractor_mode") or "default"
    if mode not in ("default", "layer_norm"):
        raise UserError(f"{source}: its extractor_mode is '{shown(mode)}'. Expected default or layer_norm.")
    channels, kernels, strides = zip(
        *conv_layers(convolutions or settings.get("conv_feature_layers") or CONVOLUTIONS, source), strict=True
    )
    width = number(settings, "encoder_embed_dim", 768, 16_384, source)
    heads = number(settings, "encoder_attention_heads", 12, 1_024, source)
    groups = number(settings, "conv_pos_groups", 16, width, source)
    if width % heads or width % groups:
        raise UserError(
            f"{source}: its encoder_embed_dim of {width} isn't a multiple of its {heads} attention heads and of its "
            f"conv_pos_groups of {groups}. Is the file complete?"
        )
    return {
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "conv_bias": flag(settings, "conv_bias", source),
        "feat_extract_norm": "layer" if mode == "layer_norm" else "group",
        "do_stable_layer_norm": flag(settings, "layer_norm_first", source),
        "num_hidden_layers": number(settings, "encoder_layers", 12, 512, source),
        "hidden_size": width,
        "intermediate_size": number(settings, "encoder_ffn_embed_dim", 3072, 65_536, source),
        "num_attention_heads": heads,
        "num_conv_pos_embeddings": number(settings, "conv_pos", 128, 4_096, source),
        "num_conv_pos_embedding_groups": groups,
        **{
            name: _probability(settings, key, default)
            for name, key, default in (
                ("hidden_dropout", "dropout", 0.1),
                ("attention_dropout", "attention_dropout", 0.1),
                ("activation_dropout", "activation_dropout", 0.0),
            )
        },
    }


def number(settings: Mapping[str, Any], name: str, default: int, highest: int, source: object) -> int:
    """Return a whole number from 1 to `highest`, the default where it is absent.

    Raises:
        UserError: it is no such number.
    """
    value = settings.get(name)
    value = default if value is None else value
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not whole or not 1 <= value <= highest:
        raise UserError(f"{source}: its {name} is '{shown(value)}'. Expected a number from 1 to {highest}.")
    return int(value)


def _probability(settings: Mapping[str, Any], name: str, default: float) -> float:
    """Return a dropout, which evaluation doesn't use."""
    value = settings.get(name)
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else default


def conv_layers(stated: object, source: object) -> list[tuple[int, int, int]]:
    """Return (channels, kernel, stride) of each convolution: `[(512, 10, 5)] + [(512, 3, 2)] * 4`, which fairseq
    evaluates as Python.

    Raises:
        UserError: the text is no sum of lists of numbers, or describes no sensible convolutions.
    """
    try:
        text = stated[:10_000] if isinstance(stated, str) else ""
        value = stated if isinstance(stated, list) else _list_value(ast.parse(text, mode="eval").body, 0)
        if not 1 <= len(value) <= _MAX_CONVOLUTIONS:
            raise ValueError("their number")
        triples = [(channels, kernel, stride) for channels, kernel, stride in value]
        if not all(type(number) is int for layer in triples for number in layer):
            raise ValueError("no numbers")
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise UserError(
            f"{source}: its convolutions are '{shown(stated)}'. Expected a list such as {CONVOLUTIONS}."
        ) from error
    if not all(1 <= c <= 16_384 and 1 <= k <= 1_024 and 1 <= s <= 1_024 for c, k, s in triples):
        raise UserError(f"{source}: its convolutions are '{shown(stated)}'. Expected sizes from 1 to 1024.")
    return triples


def _list_value(node: ast.expr, depth: int) -> list[Any]:
    """Return the value of lists, their sums and their multiples, of at most `_MAX_CONVOLUTIONS` entries."""
    if depth > _MAX_CONVOLUTIONS:
        raise ValueError("too deep")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        value = _list_value(node.left, depth + 1) + _list_value(node.right, depth + 1)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        factor, operand = ast.literal_eval(node.right), _list_value(node.left, depth + 1)
        if type(factor) is not int or not 0 <= factor * len(operand) <= _MAX_CONVOLUTIONS:
            raise ValueError("too many")
        value = operand * factor
    else:
        value = ast.literal_eval(node)
    if not isinstance(value, list) or len(value) > _MAX_CONVOLUTIONS:
        raise ValueError("no list of convolutions")
    return value
