"""A warm start of the convolutions: they are trained to regress a log-mel spectrogram.

From random weights and on little data the convolutions are the bottleneck of masked prediction; this precedes it for
some minutes. Not in the paper, and off in the Base recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from superb_eval.data.audio import SAMPLE_RATE
from superb_eval.pretraining import network, trainer
from superb_eval.pretraining.batches import Batch, Batches
from superb_eval.pretraining.export import MODEL, export
from superb_eval.pretraining.objective import Objective, Term, Terms
from superb_eval.pretraining.recipe import FrontSettings
from superb_eval.pretraining.shapes import HOP
from superb_eval.runtime.progress import Progress

if TYPE_CHECKING:
    from transformers import HubertModel

WINDOW = 400
"""Samples: HuBERT's receptive field, so that frame k of both covers the same samples."""


class LogMel(nn.Module):
    """A log-mel spectrogram [batch, frames, mels] of waveforms [batch, samples], with HuBERT's frames.

    It is standardised over each clip's valid frames: HuBERT's GroupNorm removes the level, so that no later layer
    could predict it.
    """

    def __init__(self, mels: int) -> None:
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        self.spectrogram = MelSpectrogram(SAMPLE_RATE, n_fft=512, win_length=WINDOW, hop_length=HOP, n_mels=mels)
        self.spectrogram.spectrogram.center = False

    def forward(self, wavs: Tensor, valid: Tensor) -> Tensor:
        """Return the spectrogram of the frames of `valid` [batch, frames]; values at padded frames are undefined."""
        edge = (512 - WINDOW) // 2  # torch centres the window in its 512 samples
        padded = nn.functional.pad(wavs.float(), (edge, edge))
        logs = (self.spectrogram(padded) + 1e-6).log().transpose(1, 2)[:, : valid.shape[1]]
        weights = valid[..., None] / (valid.sum(-1)[:, None, None] * logs.shape[-1])
        centred = logs - (logs * weights).sum((1, 2), keepdim=True)
        deviation = (centred.square() * weights).sum((1, 2), keepdim=True).sqrt()
        scaled: Tensor = centred / deviation.clamp(min=1e-3)
        return scaled


class Regression(Objective):
    """Mean square error of a linear map of the projected convolutions' output against the log-mel spectrogram."""

    def __init__(self, model: HubertModel, mels: int) -> None:
        super().__init__()
        self.extractor, self.projection = model.feature_extractor, model.feature_projection
        self.model = [model]  # no submodule: the transformer is not trained here
        self.target = LogMel(mels)
        self.output = nn.Linear(model.config.hidden_size, mels)

    def frontend(self) -> nn.Module:
        """See `Objective.frontend`."""
        module: nn.Module = self.extractor
        return module

    def prepare(self, batch: Batch) -> Batch:
        """See `Objective.prepare`."""
        return batch._replace(inputs=network.frame_inputs(self.model[0], batch))

    def forward(self, batch: Batch) -> Terms:
        """See `Objective.forward`."""
        features, valid, _ = network.run_frontend(self.model[0], batch)
        counted = batch.inputs["counted"]
        with torch.autocast(features.device.type, enabled=False):
            target = self.target(batch.wavs, valid)
        prediction = self.output(self.projection(features)).float()
        return {"mse": Term(network.sum_of_mean_squares(prediction - target, counted), counted.sum())}


def warm_up(
    settings: FrontSettings,
    model: HubertModel,
    batches: Batches,
    folder: Path,
    fabric: Any,
    progress: Progress,
    loggers: Sequence[str],
) -> None:
    """Train a network's convolutions by the regression; export that encoder too, for comparison.

    Raises:
        UserError: see `trainer.fit`.
    """
    with network.seeded(batches.seed):
        objective = Regression(model, settings.mels)
    trainer.fit(
        objective,
        batches if settings.batch_seconds is None else batches.of_seconds(settings.batch_seconds),
        settings.optim,
        folder,
        fabric=fabric,
        seed=batches.seed,
        progress=progress,
        name="front end",
        loggers=loggers,
    )
    if fabric.is_global_zero and not (folder / MODEL / "model.safetensors").is_file():  # the last file of an export
        export(model, folder / MODEL)
