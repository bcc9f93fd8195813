"""FBANK, the baseline of the SUPERB score: log-mel filter banks with two orders of deltas.

`fbank` is the baseline as s3prl ships it (`upstream/baseline/fbank.yaml`): each utterance is normalised to zero mean
and unit variance per dimension. Its mean over time is therefore zero, and a mean-pooled linear head stays at chance:
that is the SUPERB paper's FBANK row (KS 8.63 % against a chance level of 8.33 %). `fbank_nonorm` is not normalised.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from superb_eval.errors import UserError
from upstreams.base import SAMPLE_RATE, Card, Upstream

WINDOW, STRIDE, MELS = 400, 160, 80
"""25 ms windows every 10 ms, in samples at 16 kHz, and 80 mel bands."""

_SHARED = {"stride": STRIDE, "layers": 1, "width": 3 * MELS, "licence": "no weights"}
_SOURCE = "s3prl upstream/baseline/{} (torchaudio.compliance.kaldi.fbank)"

CARDS = (
    Card(
        name="fbank",
        summary="80 log-mel + deltas, normalised per utterance, as s3prl ships it",
        source=_SOURCE.format("fbank.yaml"),
        notes=("its mean over time is zero: mean-pooled tasks (KS, SID, IC, ER) stay at chance",),
        **_SHARED,  # type: ignore[arg-type]
    ),
    Card(
        name="fbank_nonorm",
        summary="80 log-mel + deltas, not normalised",
        source=_SOURCE.format("fbank_no_cmvn.yaml"),
        **_SHARED,  # type: ignore[arg-type]
    ),
)


def build(card: Card, checkpoint: str | None, seed: int | None) -> Upstream:
    """Return FBANK; it has no weights, so `@...` is refused."""
    import torchaudio  # noqa: F401 - here, on one thread: two threads that import it at once find it incomplete

    if checkpoint is not None or seed is not None:
        raise UserError(f"{card.name} has no weights: write it without '@'.")
    return Fbank(card)


class Fbank(Upstream):
    """Kaldi's log-mel filter banks with first and second deltas, `[batch, frames, 240]` at 100 frames per second."""

    reentrant = True
    family = "fbank"

    def feature_settings(self) -> dict[str, Any]:
        """See `Upstream.feature_settings`; windows and strides are in samples."""
        bands = {"window": WINDOW, "stride": STRIDE, "mels": MELS, "deltas": 2, "delta_window": 5}
        return {**bands, "normalise": self._normalises}

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """See `Upstream.forward`; one hidden state. A waveform shorter than one window is a `UserError`."""
        self.refuse_short(wavs)
        return {"hidden_states": [pad_sequence([self._features(wav) for wav in wavs], batch_first=True)]}

    def frames(self, samples: int) -> int:
        """Return the number of whole windows in a waveform."""
        return max(0, (samples - WINDOW) // STRIDE + 1)

    def _features(self, wav: Tensor) -> Tensor:
        """Return [frames, 240] of one waveform [samples]."""
        from torchaudio.compliance import kaldi
        from torchaudio.functional import compute_deltas

        mel = kaldi.fbank(wav[None], num_mel_bins=MELS, sample_frequency=SAMPLE_RATE, use_log_fbank=True)
        delta = compute_deltas(mel.T, win_length=5)  # [mels, frames]
        # Rows of frames, as s3prl stacks them: the mean of columns would be summed in another order, to other bits.
        stacked = torch.cat([mel, delta.T, compute_deltas(delta, win_length=5).T], dim=1)  # [frames, 3 * mels]
        return _normalise(stacked) if self._normalises else stacked

    @property
    def _normalises(self) -> bool:
        return self.card.name == "fbank"


def _normalise(frames: Tensor) -> Tensor:
    """Return [frames, dim] with zero mean and unit variance per dimension (`extracter.py:CMVN`)."""
    return (frames - frames.mean(dim=0)) / (frames.std(dim=0) + 1e-10)
