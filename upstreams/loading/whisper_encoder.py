"""Whisper's encoder (Radford et al., arXiv 2212.04356) on the transformers network: `hf:openai/whisper-base`.

It hears log-mel spectra of exactly 30 s, so each waveform is cut into stretches of 30 s, the last is padded with
silence as its feature extractor does, and only the frames that have sound under them are kept. Nothing is shared
between the utterances of a batch. A second of speech costs as much as thirty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from upstreams.base import SAMPLE_RATE, Card, Upstream
from upstreams.loading import load_weights
from upstreams.loading.network_settings import network_settings

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

AT_ONCE = 4
"""Stretches in one pass: each takes the memory of 30 s."""

NOTES = (
    "hears stretches of 30 s, the last padded with silence: a second costs as much as thirty",
    "the encoder alone: no decoder, no text",
)


class Whisper(Upstream):
    """Whisper's encoder: the sum of convolution and positions, and the output of each layer, at 50 frames per second.

    Hidden states are those of `transformers.models.whisper.WhisperEncoder`: the last has its final LayerNorm.
    """

    family = "whisper"

    def __init__(self, address: str, encoder: Any, place: str, revision: str | None = None) -> None:
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
        self._ears = _ears(place, revision, config.num_mel_bins)
        self.window: int = config.max_source_positions * self.card.stride
        """Samples that the encoder hears at a time."""

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """See `Upstream.forward`; a waveform shorter than a frame is a `UserError`."""
        self.refuse_short(wavs)
        stretches = [stretch for wav in wavs for stretch in torch.split(wav, self.window)]
        heard = [states for k in range(0, len(stretches), AT_ONCE) for states in self._hear(stretches[k : k + AT_ONCE])]
        whole, begun = [], 0
        for wav in wavs:
            parts = heard[begun : begun + -(-len(wav) // self.window)]
            begun += len(parts)
            whole.append(torch.cat(parts, dim=1))  # [layers, frames, dim]
        return {"hidden_states": [pad_sequence(list(layer), batch_first=True) for layer in zip(*whole, strict=True)]}

    def frames(self, samples: int) -> int:
        """Return the number of whole frames of 320 samples."""
        return samples // self.card.stride

    def feature_settings(self) -> dict[str, Any]:
        """See `Upstream.feature_settings`."""
        spectrum = {k: v for k, v in self._ears.to_dict().items() if not k.endswith(("_type", "_class", "_map"))}
        return {**network_settings(self.encoder.config), "spectrum": spectrum}

    def feature_weights(self) -> dict[str, Tensor]:
        """See `Upstream.feature_weights`: transformers' names."""
        return dict(self.encoder.state_dict())

    def _hear(self, stretches: list[Tensor]) -> list[Tensor]:
        """Return [layers, valid frames, dim] of each stretch [samples]."""
        with torch.autocast("cpu", enabled=False):  # the extractor knows no bfloat16
            mel = self._ears(
                [stretch.cpu().numpy() for stretch in stretches],
                sampling_rate=SAMPLE_RATE,
                max_length=self.window,
                return_tensors="pt",
            ).input_features
        output = self.encoder(mel.to(stretches[0].device), output_hidden_states=True)
        states = torch.stack([*output.hidden_states[:-1], output.last_hidden_state], dim=1)
        return [state[:, : self.frames(len(stretch))] for state, stretch in zip(states, stretches, strict=True)]


def _ears(place: str, revision: str | None, bands: int) -> WhisperFeatureExtractor:
    """Return the feature extractor that a folder describes, or Whisper's usual one where it describes none."""
    from transformers import WhisperFeatureExtractor
    from transformers.utils import cached_file

    found = cached_file(
        place, "preprocessor_config.json", revision=revision, _raise_exceptions_for_missing_entries=False
    )
    if found is None:
        return WhisperFeatureExtractor(feature_size=bands)
    with load_weights.explained(place, "the preprocessor_config.json"):
        return WhisperFeatureExtractor.from_pretrained(place, revision=revision)
