"""HuBERT (Hsu et al., arXiv 2106.07447) on the transformers network, made independent of what shares the batch.

HuBERT Base's first convolution is followed by a GroupNorm with one group per channel, whose statistics run over time.
s3prl, transformers and torchaudio let them run over the padding too, so that an utterance's features change with its
neighbours (by 56 % for 1.3 s of speech padded by 8 s, random weights). Here they run over each utterance's own
frames: a batch equals its members one by one. `hubert_padded` keeps the published behaviour, for comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from superb_eval.errors import UserError
from upstreams.base import Card, Upstream
from upstreams.guard import refused_pickle

if TYPE_CHECKING:
    from transformers import HubertConfig, HubertModel

HUB = {"hubert": "facebook/hubert-base-ls960", "hubert_base": "facebook/hubert-base-ls960"}
"""Where the weights of a name are fetched from when its address gives none."""

_MINI = {
    "hidden_size": 192,
    "num_attention_heads": 4,
    "intermediate_size": 768,
    "conv_dim": (64, 96, 128, 128, 128, 192, 192),
}
CONFIGS: dict[str, dict[str, Any]] = {"hubert_mini": _MINI, "hubert_nano": {**_MINI, "num_hidden_layers": 2}}
"""What departs from HuBERT Base (`transformers.HubertConfig`'s defaults), by name."""

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
    "width": 192,
    "licence": "Apache-2.0",
    "source": "this repository",
    "training_data": "none yet: use @random",
}

CARDS = (
    Card(name="hubert", summary="HuBERT Base, batch-invariant", historical="hubert_padded", **_BASE),  # type: ignore[arg-type]
    Card(name="hubert_base", summary="the same as hubert", historical="hubert_padded", **_BASE),  # type: ignore[arg-type]
    Card(
        name="hubert_padded",
        summary="HuBERT Base, first GroupNorm over the padded batch, as published",
        notes=("an utterance's features depend on what it is batched with",),
        **_BASE,  # type: ignore[arg-type]
    ),
    Card(name="hubert_mini", summary="12 layers x 192", layers=13, parameters=5_948_864, **_SMALL),  # type: ignore[arg-type]
    Card(name="hubert_nano", summary="2 layers x 192, for tests", layers=3, parameters=1_500_224, **_SMALL),  # type: ignore[arg-type]
)


def build(card: Card, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open HuBERT with seeded random weights, from a file, a folder in transformers' layout, or from the hub.

    Raises:
        UserError: there are no weights there, they don't fit, or the file wants to run code.
    """
    if seed is not None:
        return Hubert(card, _random(card, seed))
    place = checkpoint or HUB.get(card.name.removesuffix("_padded"))
    if place is None:
        raise UserError(f"{card.name} has no released weights yet: write {card.name}@random or {card.name}@CHECKPOINT.")
    path = Path(place)
    if path.is_file():
        return Hubert(card, _from_file(card, path))
    model = _from_pretrained(place)
    return Hubert(_fitted(card, model), model)


class Hubert(Upstream):
    """A transformers HuBERT as an upstream: `layers + 1` hidden states `[batch, frames, dim]` at 50 frames per second.

    Hidden state 0 is the input of the first transformer layer (after the positional convolution and LayerNorm), k
    the output of layer k, as in s3prl (`upstream/hubert/expert.py`).
    """

    def __init__(self, card: Card, model: HubertModel) -> None:
        super().__init__(card)
        self.model = model
        # As fairseq's `task.normalize`, behind the published figures: Large was trained on waveforms of zero mean and
        # unit variance, Base was not, whatever a folder's preprocessor_config.json says.
        self.normalise = model.config.feat_extract_norm == "layer"
        first = model.feature_extractor.conv_layers[0]
        # HuBERT Large has LayerNorms there, which run over channels: nothing of them leaks from padding.
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm) and card.name != "hubert_padded":
            first.layer_norm = ValidGroupNorm.like(first.layer_norm)

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """See `Upstream.forward`; a waveform shorter than one receptive field is a `UserError`."""
        self.refuse_short(wavs)
        if self.normalise:
            wavs = [nn.functional.layer_norm(wav, wav.shape) for wav in wavs]
        lengths = torch.tensor([len(wav) for wav in wavs], device=wavs[0].device)
        batch = pad_sequence(wavs, batch_first=True)  # [batch, samples]
        mask = torch.arange(batch.shape[1], device=batch.device) < lengths[:, None]
        norm = getattr(self.model.feature_extractor.conv_layers[0], "layer_norm", None)
        if isinstance(norm, ValidGroupNorm):
            config = self.model.config
            norm.valid = (lengths - config.conv_kernel[0]) // config.conv_stride[0] + 1
        # No mask where nothing is padded: attention without one is faster, and equal.
        output = self.model(batch, attention_mask=None if mask.all() else mask.long(), output_hidden_states=True)
        return {"hidden_states": list(output.hidden_states)}

    def extra_repr(self) -> str:
        """Return what the features depend on besides weights: `Upstream.fingerprint` reads it."""
        return f"normalise={self.normalise}, config={self.model.config.to_diff_dict()}"

    def frames(self, samples: int) -> int:
        """Return the frame count of the seven unpadded convolutions: floor((samples - 400) / 320) + 1 for HuBERT."""
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return max(0, samples)


class ValidGroupNorm(nn.GroupNorm):
    """A GroupNorm with one group per channel whose statistics leave the padded frames out.

    `valid` [batch] is the number of valid frames of each utterance; set it before each forward pass.
    """

    valid: Tensor | None = None

    @classmethod
    def like(cls, norm: nn.GroupNorm) -> ValidGroupNorm:
        """Return one with the weights of a plain GroupNorm."""
        new = cls(norm.num_groups, norm.num_channels, norm.eps)
        new.load_state_dict(norm.state_dict())
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [batch, channels, frames]; padded frames are normalised too, and mean nothing."""
        if self.valid is None or bool((self.valid == x.shape[-1]).all()):
            return super().forward(x)
        mask = (torch.arange(x.shape[-1], device=x.device) < self.valid[:, None])[:, None]  # [batch, 1, frames]
        count = self.valid[:, None, None].to(x.dtype)
        centred = x - (x * mask).sum(-1, keepdim=True) / count
        variance = (centred.square() * mask).sum(-1, keepdim=True) / count
        return centred * (variance + self.eps).rsqrt() * self.weight[:, None] + self.bias[:, None]


def _config(card: Card) -> HubertConfig:
    from transformers import HubertConfig

    return HubertConfig(**CONFIGS.get(card.name, {}))


def _random(card: Card, seed: int) -> HubertModel:
    from transformers import HubertModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HubertModel(_config(card))


def _from_file(card: Card, path: Path) -> HubertModel:
    """Fill the card's own network with a state dict from a .safetensors file or a weights-only pickle."""
    model = _random(card, seed=0)
    weights, own = load_weights(path), model.state_dict()
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    reshaped = sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
    if missing or unknown or reshaped:
        raise UserError(
            f"{path}: its weights don't fit {card.name}: {len(missing)} missing (such as {missing[:2]}), "
            f"{len(unknown)} unknown (such as {unknown[:2]}), {len(reshaped)} of another shape ({reshaped[:2]}). "
            "Give the folder with its config.json instead."
        )
    model.load_state_dict(weights)
    return model


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without ever running code from the file.

    Raises:
        UserError: the file is damaged, no state dict, or a pickle that needs more than tensors.
    """
    import pickle

    from safetensors.torch import load_file

    try:
        safe = path.suffix == ".safetensors"
        weights = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        advice = "Save the state dict as .safetensors where you trust it, and give that file."
        raise refused_pickle(path, advice) from error
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean
        raise UserError(f"{path}: not readable as weights ({error!r}). Is the file complete?") from error
    if not (isinstance(weights, dict) and all(isinstance(value, Tensor) for value in weights.values())):
        raise UserError(f"{path}: holds no plain state dict (names to tensors). Save `model.state_dict()` alone.")
    return weights


def _from_pretrained(place: str) -> HubertModel:
    """Load a folder in transformers' layout, or a hub id."""
    import pickle

    from transformers import HubertModel

    loader: Callable[..., Any] = HubertModel.from_pretrained
    try:
        model, info = loader(place, output_loading_info=True, dtype=torch.float32)
    except pickle.UnpicklingError as error:
        raise refused_pickle(place, "Give a folder with .safetensors.") from error
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"HuBERT's weights can't be opened from '{place}': {first} Give a folder with @FOLDER, or @random."
        ) from error
    missing = [name for name in info["missing_keys"] if name != "masked_spec_embed"]
    if missing or info["mismatched_keys"]:
        raise UserError(f"{place}: no HuBERT: {len(missing)} weights are missing, such as {sorted(missing)[:2]}.")
    return model


def _fitted(card: Card, model: HubertModel) -> Card:
    """Return the card with the sizes of a network that brought its own config."""
    config, parameters = model.config, sum(p.numel() for p in model.parameters())
    stride = math.prod(config.conv_stride)
    layers, width = config.num_hidden_layers + 1, config.hidden_size
    return replace(card, stride=stride, layers=layers, width=width, parameters=parameters)
