from __future__ import annotations

import numpy as np
import torch
import torchaudio

from superb_eval.pretraining import shapes
from superb_eval.pretraining.frontend_warmup import LogMel


def test_the_spectrogram_covers_the_samples_of_huberts_frames() -> None:
    """Against a discrete Fourier transform of each frame's own 400 samples, zero on both sides."""
    rng = np.random.default_rng(0)
    wave = rng.standard_normal(8_000).astype(np.float32)
    frames = shapes.frame_count(len(wave))
    spectrogram = LogMel(40)(torch.from_numpy(wave)[None], torch.ones(1, frames, dtype=torch.bool))[0].numpy()
    banks = torchaudio.functional.melscale_fbanks(257, 0.0, 8_000.0, 40, 16_000).numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    rows = np.stack([wave[320 * k : 320 * k + 400] * window for k in range(frames)])
    logs = np.log(np.abs(np.fft.rfft(rows, 512)) ** 2 @ banks + 1e-6)
    np.testing.assert_allclose(spectrogram, (logs - logs.mean()) / logs.std(), rtol=1e-3, atol=1e-3)


def test_padding_does_not_change_the_spectrogram() -> None:
    wavs = torch.randn(2, 8_000, generator=torch.Generator().manual_seed(0))
    wavs[1, 5_000:] = 0
    counts = [shapes.frame_count(n) for n in (8_000, 5_000)]
    valid = torch.arange(counts[0]) < torch.tensor(counts)[:, None]
    target = LogMel(40)
    together = target(wavs, valid)
    alone = target(wavs[1:, :5_000], torch.ones(1, counts[1], dtype=torch.bool))
    torch.testing.assert_close(together[1, : counts[1]], alone[0], rtol=1e-4, atol=1e-4)
    assert torch.isfinite(target(torch.zeros(1, 8_000), valid[:1])).all()  # silence
