"""Trimming compared with the lengths that sox itself returned, and with its rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from superb_eval.data import audio, sox_silence
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError

Parts = list[tuple[float, int]]
"""Level and number of samples of each segment of a square wave."""


def wave(parts: Parts) -> NDArray[np.float32]:
    segments = [np.where(np.arange(samples) // 8 % 2, level, -level) for level, samples in parts]
    return np.concatenate(segments).astype(np.float32)


def write(path: Path, parts: Parts) -> Path:
    soundfile.write(path, wave(parts), 16_000, subtype="PCM_16")
    return path


SOX: list[tuple[Parts, int]] = [
    ([(0, 3000), (0.25, 5000), (0, 4000)], 5319),
    ([(0.25, 5000), (0, 1500), (0.25, 5000)], 11_500),
    ([(0.25, 5000), (0, 2500), (0.25, 1500), (0, 2500), (0.25, 4000)], 11_138),
    ([(0, 8000)], 0),
    ([(0.25, 1500)], 0),
    ([(0.25, 8000)], 8000),
    ([(0.25, 3000), (0, 1919), (0.25, 3000)], 6319),
    ([(0.25, 3000), (0, 1920), (0.25, 3000)], 6319),
    ([(0.0009, 8000), (0.0012, 8000)], 0),
    ([(0.002, 1700), (0, 6000), (0.25, 1600), (0, 100), (0.25, 200), (0, 9000), (0.01, 3000), (0, 1000)], 7914),
]
"""Samples that sox 14.4.2 left of these waves, as 16-bit WAV, with `gain -3.0 silence 1 0.1 0.1% -1 0.1 0.1%`."""


@pytest.mark.parametrize(("parts", "left"), SOX)
def test_as_many_samples_are_left_as_by_sox(tmp_path: Path, parts: Parts, left: int) -> None:
    clip = Clip(write(tmp_path / "a.wav", parts), gain_db=-3.0, trim_silence=True)
    assert audio.seconds_after_trimming(clip) == left / 16_000
    if left:
        assert len(audio.read(clip)) == left


def test_the_remaining_samples_are_the_sound() -> None:
    samples = wave([(0, 3000), (0.25, 5000), (0, 4000), (0.5, 4000)])
    trimmed = sox_silence.trim(samples)
    # Sound is detected a few samples late, and ends when the whole window is silent.
    first, second = trimmed[: sox_silence.WINDOW + 5000 - 10], trimmed[-4000 + 10 :]
    assert np.abs(first[:4900]).min() == 0.25
    assert np.abs(second).min() == 0.5
    assert sox_silence.trim(samples[:0]).shape == (0,)


def test_trimming_changes_the_digest_but_not_the_duration_by_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", [(0, 3000), (0.25, 5000)])
    plain, trimmed = Clip(path), Clip(path, trim_silence=True)
    assert audio.digest(plain) != audio.digest(trimmed)
    assert audio.seconds(trimmed) == 0.5
    assert len(audio.read(plain)) == 8000 > len(audio.read(trimmed))


def test_a_silent_clip_is_refused(tmp_path: Path) -> None:
    clip = Clip(write(tmp_path / "hush.wav", [(0, 9000)]), trim_silence=True)
    with pytest.raises(UserError, match=r"hush\.wav: 0\.0000 s are left after silence.*corpus\.trim_silence"):
        audio.read(clip)
