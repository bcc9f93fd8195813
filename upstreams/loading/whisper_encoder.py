"""Whisper's encoder (Radford et al., arXiv 2212.04356) on the transformers network: `hf:openai/whisper-base`.

It reads log-mel spectra of exactly 30 s, so each waveform is cut into windows of 30 s, the last is padded with silence
as by its feature extractor, and the frames of the padding are dropped. Nothing is shared between the utterances of a
batch. A second of speech costs as much as thirty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from superb_eval.errors import UserError
from upstreams.base import SAMPLE_RATE, Card, Upstream
from upstreams.loading import config_bounds, hf_folders
from upstreams.loading.config_bounds import SpectrumBounds
from upstreams.loading.network_building import building
from upstreams.loading.network_settings import network_settings

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

WINDOWS_PER_PASS = 4
"""Windows in one forward pass: each takes the memory of 30 s."""

NOTES = (
    "processes windows of 30 s, the last padded with silence: a second costs as much as thirty",
    "the encoder alone: no decoder, no text",
)


class Whisper(Upstream):
    """Whisper's encoder: the sum of convolution and positions, and the output of each layer, at 50 frames per second.

    Hidden states are those of `transformers.models.whisper.WhisperEncoder`: the last has its final LayerNorm.
    """

    family = "whisper"

    def __init__(self, address: str, encoder: Any, source: str, revision: str | None = None) -> None:
        config = encoder.config
        card = Card(
            name=address,
            summary="Whisper's encoder",
            stride=2 * 160,
            layers=config.encoder_layers + 1,
            width=config.d_model,
            parameters=sum(p.numel() for p in encoder.parameters()),
            source=address,
            training_data="unknown: see its model card",
            notes=NOTES,
        )
        super().__init__(card)
        self.encoder: Any = encoder
        self._feature_extractor = _load_feature_extractor(source, revision, config.num_mel_bins)
        self.window: int = config.max_source_positions * self.card.stride
        """Samples that the encoder processes at a time."""

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """See `Upstream.forward`; a waveform shorter than a frame is a `UserError`."""
        self.refuse_short(wavs)
        windows = [window for wav in wavs for window in torch.split(wav, self.window)]
        batches = (windows[k : k + WINDOWS_PER_PASS] for k in range(0, len(windows), WINDOWS_PER_PASS))
        encoded = [states for batch in batches for states in self._encode_windows(batch)]
        utterances, first = [], 0
        for wav in wavs:
            parts = encoded[first : first + -(-len(wav) // self.window)]
            first += len(parts)
            utterances.append(torch.cat(parts, dim=1))  # [layers, frames, dim]
        return {
            "hidden_states": [pad_sequence(list(layer), batch_first=True) for layer in zip(*utterances, strict=True)]
        }

    def frames(self, samples: int) -> int:
        """Return the number of whole frames of 320 samples."""
        return samples // self.card.stride

    def feature_settings(self) -> dict[str, Any]:
        """See `Upstream.feature_settings`."""
        spectrum = {
            k: v for k, v in self._feature_extractor.to_dict().items() if not k.endswith(("_type", "_class", "_map"))
        }
        return {**network_settings(self.encoder.config), "spectrum": spectrum}

    def feature_weights(self) -> dict[str, Tensor]:
        """See `Upstream.feature_weights`: transformers' names."""
        return dict(self.encoder.state_dict())

    def _encode_windows(self, windows: list[Tensor]) -> list[Tensor]:
        """Return [layers, valid frames, dim] of each window [samples]."""
        with torch.autocast("cpu", enabled=False):  # the feature extractor doesn't support bfloat16
            mel = self._feature_extractor(
                [window.cpu().numpy() for window in windows],
                sampling_rate=SAMPLE_RATE,
                max_length=self.window,
                return_tensors="pt",
            ).input_features
        output = self.encoder(mel.to(windows[0].device), output_hidden_states=True)
        states = torch.stack([*output.hidden_states[:-1], output.last_hidden_state], dim=1)
        return [state[:, : self.frames(len(window))] for state, window in zip(states, windows, strict=True)]


def _load_feature_extractor(source: str, revision: str | None, bands: int) -> WhisperFeatureExtractor:
    """Return the feature extractor of a folder, or Whisper's default where it has none."""
    from transformers import WhisperFeatureExtractor

    path, content = hf_folders.read_json(source, "preprocessor_config.json", revision)
    stated = config_bounds.validate(SpectrumBounds, content, path).feature_size if content is not None else bands
    if stated != bands:
        raise UserError(f"{path}: its feature_size is {stated}, and the network reads {bands} bands. Copy both again.")
    with building(source, "the preprocessor_config.json"):
        if content is None:
            return WhisperFeatureExtractor(feature_size=bands)
        return WhisperFeatureExtractor.from_pretrained(source, revision=revision)
