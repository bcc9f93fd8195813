"""Converts checkpoints of HuBERT, wav2vec 2.0 and WavLM from other libraries' layouts to transformers' networks.

Supported: fairseq's own files, pre-trained and fine-tuned; WavLM's; s3prl's distiller checkpoints
(`upstream/distiller`, such as distilhubert_ls960_4-8-12.ckpt) and its converted files (`upstream/hubert/convert.py`);
state dicts of torchaudio's bundles (`torchaudio.models.hubert_base`), of transformers and of fairseq's modules, under
any prefix. The layout is recognised by the file's keys and by the names of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from superb_eval.errors import UserError
from upstreams.loading import fairseq_settings, state_dicts, weight_names
from upstreams.loading.checkpoint_file import StoredCheckpoint
from upstreams.loading.fairseq_settings import FairseqSettings
from upstreams.loading.network_parts import describe_weights
from upstreams.loading.weight_names import POSITION, Weights

ARCHITECTURES = {"hubert": "HuBERT", "wav2vec2": "wav2vec 2.0", "wavlm": "WavLM"}
"""Published names, by transformers' `model_type`."""

_HEADS = {768: 12, 1024: 16, 1280: 16}
"""The number of attention heads of every published HuBERT, wav2vec 2.0 and WavLM of a width."""

_KERNELS, _STRIDES = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]
"""Of the convolutions of all published ones."""


@dataclass(frozen=True)
class ConvertedCheckpoint:
    """A network read from another library's file."""

    layout: str
    """The name of the layout, for messages."""
    architecture: str
    """transformers' `model_type`, one of `ARCHITECTURES`."""
    config: dict[str, Any]
    """Arguments of transformers' configuration."""
    weights: Weights
    """Of the encoder, by transformers' names."""
    normalise: bool | None = None
    """Whether waveforms are normalised to zero mean and unit variance; None: the file doesn't state it."""
    heads: Weights | None = None
    """Of `upstreams.distilhubert.Heads`; None: the file has none."""
    prefix: str = ""
    """Of the weights' names in the file."""
    left_out: tuple[str, ...] = ()
    """Modules beside the encoder, which its hidden states don't depend on."""
    stated: bool = True
    """Whether the file states its settings; else they are inferred from its weights."""

    @property
    def stated_heads(self) -> int | None:
        """The number of attention heads, where settings or weights determine it: WavLM's do."""
        return self.config["num_attention_heads"] if self.stated or self.architecture == "wavlm" else None


def convert(stored: StoredCheckpoint, prefix: str | None = None) -> ConvertedCheckpoint:
    """Return the network in a file, or the one at a prefix where it holds several.

    Raises:
        UserError: the file holds no such network, or several; or its settings aren't supported by transformers.
    """
    content, source = stored.content, stored.path
    if {"Config", "Distiller"} <= content.keys():
        return _convert_distiller(content, source)
    network = state_dicts.select_network(stored, prefix)
    settings = fairseq_settings.find_settings(content, source)
    if settings is not None and weight_names.is_fairseq(network.weights):
        return _convert_fairseq(settings, network, source, "model_weight" in content)
    return _convert_state_dict(network, source)


def _convert_distiller(content: Mapping[str, Any], source: object) -> ConvertedCheckpoint:
    stored = fairseq_settings.plain(content["Config"])
    settings = (stored.get("distiller") if isinstance(stored, dict) else None) or {}
    embedding = settings.get("task_emb_type")
    if embedding in ("add", "concat"):
        raise UserError(
            f"{source}: its task_emb_type is '{embedding}', which only s3prl supports: load it with s3prl:NAME."
        )
    # The defaults of s3prl's `DistillerConfig`, where they differ from its HuBERT's.
    config = fairseq_settings.to_config(
        {"encoder_layers": 1, "activation_dropout": 0.1, **settings},
        source,
        settings.get("extractor_conv_feature_layers"),
    )
    config["feat_proj_layer_norm"] = False
    stored_weights = content["Distiller"] if isinstance(content["Distiller"], Mapping) else {}
    weights = {
        name: value for name, value in stored_weights.items() if isinstance(name, str) and isinstance(value, Tensor)
    }
    return ConvertedCheckpoint(
        "s3prl's distiller",
        "hubert",
        config,
        _complete(weight_names.to_transformers(weights), config),
        normalise=False,
        heads=_heads(weights, source),
        prefix="Distiller.",
        left_out=weight_names.left_out_parts(weights),
    )


def _heads(weights: Mapping[str, Tensor], source: object) -> Weights | None:
    """Return the weights of `upstreams.distilhubert.Heads`, from an output layer of s3prl's form `expand-last`."""
    if "output_layer.0.weight" not in weights:
        return None
    try:
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
    except (KeyError, IndexError, RuntimeError) as error:
        raise UserError(f"{source}: its output_layer is none of s3prl's ({str(error)[:100]}).") from error


def _convert_fairseq(
    settings: FairseqSettings, network: state_dicts.StoredNetwork, source: object, by_s3prl: bool
) -> ConvertedCheckpoint:
    if "w2v_encoder." in network.prefix and not settings.fine_tuned:
        raise UserError(
            f"{source}: is fine-tuned, and has no settings of its encoder (w2v_args). Take the checkpoint that it "
            "was fine-tuned from, or give a folder in transformers' layout."
        )
    weights = weight_names.to_transformers(network.weights)
    architecture = _architecture(weights, network.weights, settings.kind)
    config = fairseq_settings.to_config(settings.model, source)
    if architecture == "wavlm":
        config |= _wavlm_config(settings.model, source)
    elif fairseq_settings.flag(settings.model, "relative_position_embedding", source):
        raise UserError(f"{source}: its settings are WavLM's (relative_position_embedding), its weights aren't.")
    if "encoder.pos_conv_embed.batch_norm.weight" in weights:
        if architecture != "hubert":
            raise UserError(f"{source}: conv_pos_batch_norm is supported in HuBERT only, and it is a {architecture}.")
        config["conv_pos_batch_norm"] = True
    library = "WavLM's own" if architecture == "wavlm" else "s3prl's converted" if by_s3prl else "fairseq's"
    tuned = "fine-tuned " if settings.fine_tuned else ""
    return ConvertedCheckpoint(
        f"{library} {tuned}{ARCHITECTURES[architecture]}",
        architecture,
        config,
        _complete(weights, config),
        settings.normalise,
        prefix=network.prefix,
        left_out=weight_names.left_out_parts(network.weights),
    )


def _architecture(weights: Weights, stored: Weights, kind: str) -> str:
    """Return transformers' `model_type` of an encoder: by its weights, the stated kind, and the modules beside it."""
    if "encoder.layers.0.attention.gru_rel_pos_const" in weights:
        return "wavlm"
    if kind.startswith("wav2vec"):
        return "wav2vec2"
    beside = weight_names.left_out_parts(stored)
    return "wav2vec2" if not kind and {"quantizer", "project_q"} & set(beside) else "hubert"


def _wavlm_config(settings: Mapping[str, Any], source: object) -> dict[str, Any]:
    for name in ("relative_position_embedding", "gru_rel_pos"):
        if not fairseq_settings.flag(settings, name, source):
            raise UserError(f"{source}: its {name} is off, and transformers' WavLM always has it. Load it with s3prl.")
    return {
        "num_buckets": fairseq_settings.number(settings, "num_buckets", 320, 100_000, source),
        "max_bucket_distance": fairseq_settings.number(settings, "max_distance", 1280, 1_000_000, source),
    }


def _convert_state_dict(network: state_dicts.StoredNetwork, source: object) -> ConvertedCheckpoint:
    """Weights without settings: sizes are inferred from them, the rest is as in the published networks.

    Only the Large and XLarge ones have layer norms in every convolution, are pre-norm and take normalised waveforms.
    """
    if any(".attention.attention." in name for name in network.weights):
        raise UserError(f"{source}: is a WavLM of torchaudio. Load it with torchaudio:WAVLM_BASE@{source}.")
    weights = weight_names.to_transformers(network.weights)
    by_torchaudio = any(name.startswith("encoder.transformer.") for name in network.weights)
    by_fairseq = weight_names.is_fairseq(network.weights)
    layout = "torchaudio's" if by_torchaudio else "fairseq's state dict" if by_fairseq else "transformers' state dict"
    try:
        config = infer_config(weights)
        architecture = _architecture(weights, network.weights, "wav2vec" if "wav2vec2." in network.prefix else "")
        if architecture == "wavlm":
            config["num_attention_heads"] = weights["encoder.layers.0.attention.gru_rel_pos_const"].shape[1]
            config["num_buckets"] = len(weights["encoder.layers.0.attention.rel_attn_embed.weight"])
    except KeyError as error:
        missing = describe_weights([str(error.args[0])])
        raise UserError(
            f"{source}: its weights don't fit {layout}: 1 missing ({missing}), without which the network's sizes are "
            "unknown. None is drawn at random instead."
        ) from error
    except (IndexError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{source}: its weights don't fit {layout}: their shapes are of no encoder.") from error
    if config["conv_kernel"] != _KERNELS:
        raise UserError(
            f"{source}: doesn't hold the 7 convolutions of every published HuBERT (its kernels are "
            f"{config['conv_kernel']}), and without settings their strides are unknown. Give a folder with config.json."
        )
    config |= {"conv_stride": _STRIDES, "do_stable_layer_norm": config["feat_extract_norm"] == "layer"}
    return ConvertedCheckpoint(
        layout,
        architecture,
        config,
        _complete(weights, config) if by_fairseq else weights,
        normalise=config["feat_extract_norm"] == "layer",
        prefix=network.prefix,
        left_out=weight_names.left_out_parts(network.weights),
        stated=False,
    )


def _complete(weights: Weights, config: Mapping[str, Any]) -> Weights:
    """Add what fairseq's networks leave out because it changes nothing: a projection between equal widths."""
    return weight_names.with_projection(weights, config["hidden_size"], config["conv_dim"][-1])


def infer_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of `transformers.HubertConfig` that the weights of an encoder determine.

    The number of attention heads isn't determined by them: it is 16 from a width of 1024 on, else width / 64, as in
    every published HuBERT. Strides are HuBERT's.
    """
    convolutions = _conv_weights(weights)
    normed = f"{POSITION}.weight"  # beside a batch norm there is no weight norm
    position = weights[normed if normed in weights else f"{POSITION}.parametrizations.weight.original1"]
    width = len(position)  # of [width, width / groups, kernel]
    layer_norms = "feature_extractor.conv_layers.1.layer_norm.weight" in weights
    config = {
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
    return {**config, "conv_pos_batch_norm": True} if normed in weights else config


def published_heads(width: int) -> int | None:
    """Return the number of attention heads of the published networks of a width; None: there are none."""
    return _HEADS.get(width)


def count_layers(weights: Mapping[str, Tensor]) -> int:
    """Return the number of transformer layers in the weights of an encoder."""
    return len({name.split(".")[2] for name in weights if name.startswith("encoder.layers.")})


def _conv_weights(weights: Mapping[str, Tensor]) -> list[Tensor]:
    names = (f"feature_extractor.conv_layers.{k}.conv.weight" for k in range(len(weights)))
    return [weights[name] for name in names if name in weights]
