"""A warm start for the convolutions: they learn to give a log-mel spectrogram, by regression.

From random weights and on little data the convolutions are the bottleneck of masked prediction; some minutes of
this go before it. Not in the paper, and off in the Base recipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from superb_eval.data.audio import SAMPLE_RATE
from superb_eval.pretraining import network
from superb_eval.pretraining.data import Batch
from superb_eval.pretraining.objective import Objective, Term, Terms

if TYPE_CHECKING:
    from transformers import HubertModel

WINDOW, HOP = 400, 320
"""Samples: HuBERT's receptive field and stride, so that frame k of both covers the same samples."""


class LogMel(nn.Module):
    """A log-mel spectrogram [batch, frames, mels] of waveforms [batch, samples], frame by frame with HuBERT's.

    Over each clip's valid frames it is brought to mean 0 and variance 1: HuBERT's GroupNorm hides the level, so that
    nothing behind it could tell.
    """

    def __init__(self, mels: int) -> None:
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        self.spectrogram = MelSpectrogram(SAMPLE_RATE, n_fft=512, win_length=WINDOW, hop_length=HOP, n_mels=mels)
        self.spectrogram.spectrogram.center = False

    def forward(self, wavs: Tensor, valid: Tensor) -> Tensor:
        """Return the spectrogram of as many frames as `valid` [batch, frames] has; its padding means nothing."""
        edge = (512 - WINDOW) // 2  # torch centres the window in its 512 samples
        padded = nn.functional.pad(wavs.float(), (edge, edge))
        found = (self.spectrogram(padded) + 1e-6).log().transpose(1, 2)[:, : valid.shape[1]]
        weights = valid[..., None] / (valid.sum(-1)[:, None, None] * found.shape[-1])
        centred = found - (found * weights).sum((1, 2), keepdim=True)
        deviation = (centred.square() * weights).sum((1, 2), keepdim=True).sqrt()
        scaled: Tensor = centred / deviation.clamp(min=1e-3)
        return scaled


class Regression(Objective):
    """Mean square error of a linear map of the projected convolutions' output against the log-mel spectrogram."""

    def __init__(self, model: HubertModel, mels: int) -> None:
        super().__init__()
        self.extractor, self.projection = model.feature_extractor, model.feature_projection
        self.model = [model]  # not a part of this module: the transformer is not trained here
        self.target = LogMel(mels)
        self.output = nn.Linear(model.config.hidden_size, mels)

    def front(self) -> nn.Module:
        """See `Objective.front`."""
        module: nn.Module = self.extractor
        return module

    def forward(self, batch: Batch) -> Terms:
        """See `Objective.forward`."""
        heard = network.front(self.model[0], batch)
        with torch.autocast(heard.output.device.type, enabled=False):
            target = self.target(batch.wavs, heard.valid)
        given = self.output(self.projection(heard.output)).float()
        return {"mse": Term(network.masked_mean_square(given - target, heard.valid), heard.valid.sum())}
