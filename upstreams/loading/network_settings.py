"""The settings of a transformers config that decide a network's outputs in evaluation mode."""

from __future__ import annotations

from typing import Any

NETWORK_KEYS = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "conv_dim",
    "conv_stride",
    "conv_kernel",
    "conv_bias",
    "feat_extract_norm",
    "feat_extract_activation",
    "feat_proj_layer_norm",
    "do_stable_layer_norm",
    "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
    "conv_pos_batch_norm",
    "conv_pos_kernel_size",
    "num_buckets",
    "max_bucket_distance",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "d_model",
    "activation_function",
    "num_mel_bins",
    "max_source_positions",
    "scale_embedding",
)
"""Always included, whether they are the library's defaults or not."""

IGNORED_PREFIXES = (
    "mask_",
    "ctc_",
    "classifier_",
    "tdnn_",
    "xvector_",
    "decoder_",
    "proj_codevector_",
    "num_codevector",
    "_",
)
"""Prefixes of keys for training, other heads, or the origin of a config."""

IGNORED_KEYS = {
    "apply_spec_augment",
    "architectures",
    "begin_suppress_tokens",
    "bos_token_id",
    "codevector_dim",
    "contrastive_logits_temperature",
    "diversity_loss_weight",
    "dtype",
    "eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "init_std",
    "initializer_range",
    "label2id",
    "layerdrop",
    "encoder_layerdrop",
    "num_feat_extract_layers",
    "num_negatives",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "return_dict",
    "suppress_tokens",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "use_weighted_layer_sum",
    "vocab_size",
}
"""Other keys of these kinds."""


def network_settings(config: Any) -> dict[str, Any]:
    """Return the values of a transformers config that decide outputs, by its names.

    `NETWORK_KEYS` are always included. Other keys are included where they differ from the library's defaults, unless
    they are ignored, so that an unforeseen key costs a new extraction, never a wrong figure.
    """
    settings = {key: getattr(config, key) for key in NETWORK_KEYS if hasattr(config, key)}
    for key, value in config.to_diff_dict().items():
        if not (key in IGNORED_KEYS or key.startswith(IGNORED_PREFIXES) or "dropout" in key):
            settings[key] = getattr(config, key, value)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
