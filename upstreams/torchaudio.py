"""torchaudio's bundles, at `torchaudio:HUBERT_BASE`, and `torchaudio:HUBERT_BASE@FILE` with weights from a local file.

The networks are torchaudio's own, but an utterance's features don't depend on the rest of its batch: where a bundle
normalises waveforms, each is normalised by itself (torchaudio does it over the batch), and the first GroupNorm leaves
padding out (`upstreams.hubert.ValidGroupNorm`). The first hidden state is the input of the first layer, which
`extract_features` leaves out and s3prl includes.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from superb_eval.errors import UserError, near_miss
from superb_eval.runtime import outside_files
from upstreams.base import Card, Upstream
from upstreams.hubert import ValidGroupNorm
from upstreams.loading.network_building import building, most_bytes

if TYPE_CHECKING:
    from torchaudio.pipelines import Wav2Vec2Bundle

ONE_BY_ONE = "torchaudio's WavLM takes no padding: utterances of different lengths are processed one by one"


def open_address(name: str, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open a bundle by its name in `torchaudio.pipelines`, with its own weights, those of a file, or random ones.

    Raises:
        UserError: no such bundle; the file is missing, doesn't fit or would run code; nothing could be downloaded.
    """
    bundle = _bundle(name)
    address = f"torchaudio:{name}" + (f"@{checkpoint}" if checkpoint else "")
    model = _random_model(bundle, seed) if seed is not None else _pretrained(bundle, address, checkpoint)
    upstream = Torchaudio(address, model, bundle._normalize_waveform, one_by_one=bundle._model_type == "WavLM")
    upstream.network = {**bundle._params, "kind": bundle._model_type}
    return upstream


class Torchaudio(Upstream):
    """One of torchaudio's wav2vec 2.0, HuBERT or WavLM networks as an upstream, at 50 frames per second.

    Hidden states are the input of the first layer, then what `extract_features` returns: the output of each layer.
    """

    family = "torchaudio"

    def __init__(self, address: str, model: Any, normalise: bool, one_by_one: bool = False) -> None:
        """Wrap torchaudio's network; `one_by_one`: its attention takes no padding, so different lengths are
        processed one by one."""
        layers = model.encoder.transformer.layers
        card = Card(
            name=address,
            summary="a torchaudio bundle, batch-invariant",
            stride=math.prod(layer.stride for layer in model.feature_extractor.conv_layers),
            layers=len(layers) + 1,
            width=model.encoder.feature_projection.projection.out_features,
            parameters=sum(p.numel() for p in model.parameters()),
            source="torchaudio.pipelines",
            training_data="see torchaudio's documentation of the bundle",
            notes=(ONE_BY_ONE,) if one_by_one else (),
        )
        super().__init__(card)
        self.model: Any = model
        self.normalise = normalise
        self.network: dict[str, Any] = {}
        """The bundle's parameters of its network: strides, kernels, heads, where norms are."""
        self._one_by_one = one_by_one
        self._convolutions = model.feature_extractor.conv_layers
        first = self._convolutions[0]
        if isinstance(first.layer_norm, nn.GroupNorm):
            first.layer_norm = ValidGroupNorm.from_group_norm(first.layer_norm)

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """See `Upstream.forward`; a waveform shorter than one receptive field is a `UserError`."""
        self.refuse_short(wavs)
        if self.normalise:
            wavs = [nn.functional.layer_norm(wav, wav.shape) for wav in wavs]
        if self._one_by_one and len({len(wav) for wav in wavs}) > 1:
            each = [self._extract([wav]) for wav in wavs]
            layers = ([states[0] for states in layer] for layer in zip(*each, strict=True))
            return {"hidden_states": [pad_sequence(layer, batch_first=True) for layer in layers]}
        return {"hidden_states": self._extract(wavs)}

    def _extract(self, wavs: list[Tensor]) -> list[Tensor]:
        lengths = torch.tensor([len(wav) for wav in wavs], device=wavs[0].device)
        padded = lengths if len({len(wav) for wav in wavs}) > 1 else None
        first = self._convolutions[0]
        if isinstance(first.layer_norm, ValidGroupNorm):
            first.layer_norm.frame_counts = None if padded is None else (padded - first.kernel_size) // first.stride + 1
        first_input: list[Tensor] = []
        layer = self.model.encoder.transformer.layers[0]
        hook = layer.register_forward_pre_hook(lambda _, inputs: first_input.append(inputs[0]))
        try:
            states, _ = self.model.extract_features(pad_sequence(wavs, batch_first=True), padded)
        finally:
            hook.remove()
        return [first_input[0], *states]

    def frames(self, samples: int) -> int:
        """Return the frame count of the unpadded convolutions."""
        for layer in self._convolutions:
            samples = (samples - layer.kernel_size) // layer.stride + 1
        return max(0, samples)

    def feature_settings(self) -> dict[str, Any]:
        """See `Upstream.feature_settings`."""
        return {**self.network, "normalise": self.normalise}

    def feature_weights(self) -> dict[str, Tensor]:
        """See `Upstream.feature_weights`: torchaudio's names."""
        return dict(self.model.state_dict())


def bundles() -> list[str]:
    """Return the names of the bundles that return hidden states."""
    from torchaudio import pipelines

    return sorted(n for n, value in vars(pipelines).items() if isinstance(value, pipelines.Wav2Vec2Bundle))


def _bundle(name: str) -> Wav2Vec2Bundle:
    from torchaudio import pipelines

    names = bundles()
    if name not in names:
        raise UserError(f"torchaudio has no bundle '{name}'.{near_miss(name, names)} Known: {', '.join(names)}.")
    return getattr(pipelines, name)


def _random_model(bundle: Wav2Vec2Bundle, seed: int) -> nn.Module:
    from torchaudio import models

    factory = {"Wav2Vec2": models.wav2vec2_model, "WavLM": models.wavlm_model}[bundle._model_type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = factory(**bundle._params)
    return model


def _pretrained(bundle: Wav2Vec2Bundle, address: str, checkpoint: str | None) -> Any:
    """Return a bundle's network; a file is loaded instead of the one in torchaudio's download cache."""
    if checkpoint is not None:
        if not os.path.lexists(checkpoint):
            raise UserError(f"{address}: no such file. Give the bundle's weights as torchaudio downloads them.")
        outside_files.check_regular(Path(checkpoint), most_bytes())
    cached = {"model_dir": str(Path(checkpoint).parent), "file_name": Path(checkpoint).name} if checkpoint else {}
    advice = "Is it that bundle's own file?" if checkpoint else f"Fetch them elsewhere and write {address}@FILE."
    with building(address, "the bundle's weights", advice):
        model = bundle.get_model(dl_kwargs={**cached, "weights_only": True})
    # Where waveforms are normalised, torchaudio wraps the network; `Torchaudio` normalises them itself.
    return model.model if bundle._normalize_waveform else model
