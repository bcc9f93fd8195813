"""What a configuration of a network may state: checked before a library builds anything from it.

The names are transformers'; settings of fairseq and s3prl are checked once they are renamed. Only what decides on the
network's shape is checked here: the rest is the library's to refuse (`upstreams.loading.network_building`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from superb_eval.errors import UserError
from upstreams.loading.inert_values import printable, shown

MOST_LAYERS, MOST_CONVOLUTIONS = 512, 64

Model = TypeVar("Model", bound=BaseModel)

Width = Annotated[int, Field(ge=1, le=65_536)]
Heads = Annotated[int, Field(ge=1, le=1_024)]
Layers = Annotated[int, Field(ge=0, le=MOST_LAYERS)]
"""Without any, a network is its front end alone."""
Taps = Annotated[int, Field(ge=1, le=4_096)]
Widths = Annotated[list[Width], Field(min_length=1, max_length=MOST_CONVOLUTIONS)]
Lengths = Annotated[list[Taps], Field(min_length=1, max_length=MOST_CONVOLUTIONS)]
FileName = Annotated[str, Field(max_length=255, pattern=r"^[^/\\\x00]+$")]
Positive = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]

LONGEST_STRIDE = 16_000
"""Samples between two frames: a second."""


class _Bounds(BaseModel):
    """What every network's configuration may state."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", protected_namespaces=())

    attn_implementation: Literal["sdpa", "eager"] | None = None
    quantization_config: Any = None
    num_labels: Annotated[int, Field(ge=0, le=1_000_000)] = 2

    @field_validator("quantization_config")
    @classmethod
    def _refuse_quantised(cls, value: object) -> object:
        if value is not None:
            raise ValueError("quantised weights need other packages, and give other features. Give the float weights")
        return value


class WaveformConfigBounds(_Bounds):
    """Of HuBERT, wav2vec 2.0, WavLM, data2vec-audio, UniSpeech and UniSpeech-SAT; the defaults are transformers'."""

    hidden_size: Width = 768
    num_hidden_layers: Layers = 12
    num_attention_heads: Heads = 12
    intermediate_size: Width = 3072
    layer_norm_eps: Positive = 1e-5
    conv_dim: Widths = [512] * 7
    conv_kernel: Lengths = [10, 3, 3, 3, 3, 2, 2]
    conv_stride: Lengths = [5, 2, 2, 2, 2, 2, 2]
    num_conv_pos_embeddings: Taps = 128
    num_conv_pos_embedding_groups: Width = 16
    conv_pos_kernel_size: Taps = 19
    num_buckets: Annotated[int, Field(ge=4, le=100_000)] = 320
    max_bucket_distance: Annotated[int, Field(ge=4, le=1_000_000)] = 800
    adapter_attn_dim: Width | None = None

    @model_validator(mode="after")
    def _check_shapes(self) -> WaveformConfigBounds:
        _check_multiple("hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads)
        groups = self.num_conv_pos_embedding_groups
        _check_multiple("hidden_size", self.hidden_size, "num_conv_pos_embedding_groups", groups)
        counts = [len(self.conv_dim), len(self.conv_kernel), len(self.conv_stride)]
        if len(set(counts)) > 1:
            raise ValueError(f"conv_dim, conv_kernel and conv_stride list {counts} convolutions, not as many each")
        if math.prod(self.conv_stride) > LONGEST_STRIDE:
            raise ValueError(f"conv_stride makes one frame of more than {LONGEST_STRIDE:,} samples")
        if self.num_buckets // 4 >= self.max_bucket_distance:
            raise ValueError(f"max_bucket_distance of {self.max_bucket_distance} is no more than num_buckets / 4")
        return self


class WhisperConfigBounds(_Bounds):
    """Of Whisper, whose decoder is built and left out; the defaults are transformers'."""

    d_model: Width = 384
    encoder_layers: Layers = 4
    decoder_layers: Layers = 4
    encoder_attention_heads: Heads = 6
    decoder_attention_heads: Heads = 6
    encoder_ffn_dim: Width = 1536
    decoder_ffn_dim: Width = 1536
    vocab_size: Annotated[int, Field(ge=1, le=10_000_000)] = 51_865
    num_mel_bins: Annotated[int, Field(ge=1, le=1_024)] = 80
    max_source_positions: Annotated[int, Field(ge=1, le=100_000)] = 1500
    max_target_positions: Annotated[int, Field(ge=1, le=100_000)] = 448

    @model_validator(mode="after")
    def _check_shapes(self) -> WhisperConfigBounds:
        for key in ("encoder_attention_heads", "decoder_attention_heads"):
            _check_multiple("d_model", self.d_model, key, getattr(self, key))
        if self.d_model % 2:
            raise ValueError(f"d_model of {self.d_model} is odd, and half of it are sines, half cosines")
        return self


class SpectrumBounds(BaseModel):
    """Of the preprocessor_config.json of a Whisper: 100 spectra per second at 16 kHz, as its encoder expects."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    feature_size: Annotated[int, Field(ge=1, le=1_024)] = 80
    sampling_rate: Literal[16_000] = 16_000
    hop_length: Literal[160] = 160
    chunk_length: Annotated[int, Field(ge=1, le=3_600)] = 30
    n_fft: Annotated[int, Field(ge=16, le=65_536)] = 400
    padding_value: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    dither: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0


class PreprocessorBounds(BaseModel):
    """Of the preprocessor_config.json of a network that reads waveforms."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    do_normalize: bool | None = None
    """Whether waveforms are normalised to zero mean and unit variance; None: it isn't stated."""


class ShardIndex(BaseModel):
    """Of an index of shards: which file, in the folder itself, holds each weight."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    weight_map: Annotated[dict[str, FileName], Field(min_length=1, max_length=1_000_000)]


def check_config(config: Mapping[str, Any], model_type: str, source: object) -> None:
    """Refuse a configuration that no network can be built from, or none of a sensible size.

    Args:
        config: by transformers' names; its defaults stand for absent ones.
        model_type: transformers' name of the network.
        source: the file, for errors.

    Raises:
        UserError: it names the file, the key, the value and what is expected.
    """
    # Tuples are lists here, as in JSON; the name that a saved configuration has for the implementation of attention.
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
    plain.setdefault("attn_implementation", plain.get("_attn_implementation"))
    validate(WhisperConfigBounds if model_type == "whisper" else WaveformConfigBounds, plain, source)


def validate(bounds: type[Model], content: object, source: object) -> Model:
    """Return the values of a mapping that a model states.

    Raises:
        UserError: the first that is out of bounds, by the file, its key, its value and what is expected.
    """
    try:
        return bounds.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise UserError(f"{source}: {printable(message)}. Is the file complete?") from error
        key = printable(".".join(map(str, first["loc"])))
        if first["type"] == "missing":
            raise UserError(f"{source}: has no {key}. Is the file complete?") from error
        raise UserError(f"{source}: its {key} is '{shown(first['input'])}': {printable(message)}.") from error


def _check_multiple(name: str, value: int, divisor: str, by: int) -> None:
    if value % by:
        raise ValueError(f"{name} of {value} isn't a multiple of {divisor}, {by}")
