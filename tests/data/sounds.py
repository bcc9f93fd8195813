"""Files of sound for tests: written by libsndfile or ffmpeg's libraries, and read with their headers compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from superb_eval.data import audio
from superb_eval.data.audio import Clip, Waveform

RATE = audio.SAMPLE_RATE
LENGTH = 320_000


def voice(samples: int, rate: int = RATE, seed: int = 0) -> Waveform:
    """A tone that glides, with noise in parts: bit rates vary, and no two seconds are alike."""
    time = np.arange(samples) / rate
    hiss = 0.1 * np.random.default_rng(seed).standard_normal(samples) * (np.sin(3 * time) > 0)
    return (0.3 * np.sin(2 * np.pi * (200 + 100 * np.sin(time)) * time) + hiss).astype(np.float32)


def write(path: Path, samples: NDArray[np.generic], rate: int = RATE, **how: object) -> Path:
    """Write in parts: libsndfile's encoder of Vorbis overflows its stack where it gets a minute at once."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", rate, channels, **how) as file:
        for start in range(0, len(samples), 4096):
            file.write(samples[start : start + 4096])
    return path


def encode(
    path: Path, samples: Waveform, rate: int = RATE, codec: str = "aac", title: str = "", **options: str
) -> Path:
    """Write by ffmpeg's libraries."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", options=options) as media:
        media.metadata["title"] = title
        track = media.add_stream(codec, rate=rate, layout="mono")
        form = track.codec_context.codec.audio_formats[0].name
        track.codec_context.format = form
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        track.codec_context.open()
        resampler = av.AudioResampler(format=form, layout="mono", rate=rate, frame_size=track.codec_context.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            media.mux(track.encode(part))
        media.mux(track.encode(None))
    return path


def read(path: Path, *cut: float) -> Waveform:
    """Read, and check that the header agrees to the sample."""
    samples, header = audio.read(Clip(path, *cut)), audio.header(Clip(path, *cut))
    assert len(samples) == header.samples or header.rate != RATE
    return samples


def assert_cuts_are_slices(path: Path, seconds: float, rng: np.random.Generator, cuts: int = 12) -> None:
    whole = audio.read(Clip(path))
    starts = [*rng.integers(0, round((seconds - 0.2) * RATE), cuts), 0, len(whole) - 3_000]
    for first in starts:
        last = min(len(whole), first + 3_200)
        np.testing.assert_allclose(read(path, first / RATE, last / RATE), whole[first:last], atol=1e-4)


NOISE = np.random.default_rng(0).integers(-(2**15), 2**15, RATE).astype(np.int16)
