"""Utterance mixing: what is added, how loud, where; and that it depends on the crop's seed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from superb_eval.data.audio import Clip
from superb_eval.pretraining.batches import Batches
from superb_eval.pretraining.data import Audio
from superb_eval.pretraining.mixing import coloured_noise, mix
from superb_eval.pretraining.recipe import DataSettings, MixSettings

ALWAYS = MixSettings(probability=1.0, noise=0.0)


def other(rng: np.random.Generator, samples: int) -> NDArray[Any]:
    return rng.standard_normal(samples)


@pytest.mark.parametrize("settings", [ALWAYS, MixSettings(probability=1.0, noise=1.0)])
def test_at_most_half_is_mixed_at_the_drawn_level(settings: MixSettings) -> None:
    wave = np.random.default_rng(0).standard_normal(1_000)
    low, high = settings.noise_db if settings.noise else settings.speech_db
    levels = []
    for seed in range(300):
        added = mix(wave, seed, settings, other) - wave
        (places,) = np.nonzero(np.abs(added) > 1e-12)
        assert len(places) >= 1 and places[-1] - places[0] < 500
        segment = added[places[0] : places[-1] + 1]
        levels.append(10 * np.log10(np.mean(wave**2) / np.mean(segment**2)))
    assert low - 0.1 <= min(levels) and max(levels) <= high + 0.1
    assert np.ptp(levels) > 0.8 * (high - low), "drawn from all of the range"


def test_crops_are_mixed_as_often_as_asked() -> None:
    wave = np.ones(100)
    changed = [bool((mix(wave, seed, MixSettings(probability=0.2), other) != wave).any()) for seed in range(2_000)]
    assert np.mean(changed) == pytest.approx(0.2, abs=0.03)


def test_16_bits_are_kept_and_clipped() -> None:
    wave = np.full(64, 32_000, np.int16)
    mixed = mix(wave, 1, ALWAYS, lambda rng, count: np.full(count, 32_000, np.int16))
    assert mixed.dtype == np.int16 and mixed.max() == 32_767 and mixed.min() == 32_000


def test_silence_and_the_unreadable_are_left_out() -> None:
    wave = np.ones(64)
    assert np.array_equal(mix(wave, 1, ALWAYS, lambda rng, count: None), wave)
    assert np.array_equal(mix(wave, 1, ALWAYS, lambda rng, count: np.zeros(count)), wave)


def test_noise_is_steeper_than_white() -> None:
    power = [np.abs(np.fft.rfft(coloured_noise(4_096, np.random.default_rng(k)))) ** 2 for k in range(40)]
    mean = np.mean(power, axis=0)
    assert mean[1:50].mean() > 3 * mean[-500:].mean()


def test_a_mixed_batch_is_the_same_on_any_number_of_processes() -> None:
    rng = np.random.default_rng(0)
    waves = tuple(rng.integers(-9_000, 9_000, 8_000 + 900 * k).astype(np.int16) for k in range(9))
    audio = Audio(tuple(Clip(Path(f"{k}.wav")) for k in range(9)), np.array([len(wave) for wave in waves]), waves)
    content = {"sources": [{"folder": "none"}], "crop_seconds": 1.0, "batch_seconds": 9.0}
    plain, mixed = (
        Batches(audio, DataSettings.model_validate({**content, **more}), 0)
        for more in ({}, {"mix": {"probability": 0.7}})
    )
    whole, clean = mixed.load(0, 1), plain.load(0, 1)
    changed = (whole.wavs != clean.wavs).any(1)
    assert whole.clips == clean.clips and 0 < int(changed.sum()) < len(changed)
    for rank in range(2):
        share = mixed.load(0, 1, rank, 2)
        for row, length, expected in zip(share.wavs, share.lengths, whole.wavs[rank::2], strict=True):
            assert (row[:length] == expected[:length]).all()
