"""Recording conditions: rooms, microphones, background noise and levels, so that synthetic speech is not too easy.

Waveforms are floats [samples] at 16 kHz; all random numbers come from the argument `rng`. Filters are
products of spectra in plain numpy: importing scipy.signal takes longer than rendering a shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
Wave: TypeAlias = NDArray[np.float64]  # [samples]
Range: TypeAlias = tuple[float, float]  # the bounds of a uniform draw


@dataclass(frozen=True)
class Conditions:
    """The ranges that recording conditions are drawn from."""

    room_probability: float = 0.7
    t60: Range = (0.1, 0.5)  # seconds
    direct_db: Range = (3.0, 15.0)  # energy of the direct sound over that of the reverberation
    equaliser_db: float = 4.0  # standard deviation at each of the seven points
    filter_probability: float = 0.4
    low_pass: Range = (2_500.0, 7_000.0)  # Hz
    high_pass: Range = (80.0, 400.0)  # Hz
    snr_db: Range = (3.0, 20.0)
    noise_slope: Range = (0.0, 2.0)  # the noise's power falls with frequency to this power: 0 white, 1 pink, 2 brown
    peak_db: Range = (-20.0, -1.0)  # of full scale


def augment(speech: Wave, conditions: Conditions, rng: np.random.Generator) -> Wave:
    """Return clean speech, exactly zero where nobody speaks, as recorded under random conditions.

    Noise is added before the channel, because the same microphone records both.
    """
    return set_peak(apply_channel(add_noise(speech, conditions, rng), conditions, rng), conditions, rng)


def background(samples: int, conditions: Conditions, rng: np.random.Generator) -> Wave:
    """Return background noise alone [samples], through the same channel."""
    return set_peak(apply_channel(coloured_noise(samples, conditions, rng), conditions, rng), conditions, rng)


def add_noise(wave: Wave, conditions: Conditions, rng: np.random.Generator) -> Wave:
    """Add coloured noise at a random ratio to the power of the wave where it is not zero."""
    amplitude = np.sqrt(np.sum(wave**2) / (np.count_nonzero(wave) or 1))
    noise = coloured_noise(len(wave), conditions, rng)
    return np.asarray(wave + noise * amplitude * _ratio(-rng.uniform(*conditions.snr_db)))


def coloured_noise(samples: int, conditions: Conditions, rng: np.random.Generator) -> Wave:
    """Return noise of unit power with a random spectral slope, whose level varies by 3 dB four times a second."""
    length = _padded(samples, 0)
    slope = np.maximum(_frequencies(length), 50.0) ** (-rng.uniform(*conditions.noise_slope) / 2)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * slope, length)[:samples]
    points = 2 + 4 * samples // SAMPLE_RATE
    noise *= _ratio(np.interp(np.linspace(0, points - 1, samples), np.arange(points), 3 * rng.standard_normal(points)))
    return np.asarray(noise / np.sqrt(np.mean(noise**2)))


def apply_channel(wave: Wave, conditions: Conditions, rng: np.random.Generator) -> Wave:
    """Apply the transmission channel: equaliser, filters, and reverberation with its probability. Adds no delay."""
    length = _padded(len(wave), round(conditions.t60[1] * SAMPLE_RATE) + SAMPLE_RATE // 10)
    frequency = _frequencies(length)
    spectrum = np.fft.rfft(wave, length)
    spectrum *= equaliser_response(frequency, conditions, rng) * band_response(frequency, conditions, rng)
    if rng.random() < conditions.room_probability:
        spectrum *= np.fft.rfft(room_impulse_response(conditions, rng), length)
    return np.fft.irfft(spectrum, length)[: len(wave)]


def room_impulse_response(conditions: Conditions, rng: np.random.Generator) -> Wave:
    """Return a room's impulse response: direct sound at sample 0, then a tail that decays by 60 dB over its length."""
    samples = round(rng.uniform(*conditions.t60) * SAMPLE_RATE)
    tail = rng.standard_normal(samples) * _ratio(-60 * np.arange(samples) / samples)
    tail *= _ratio(-rng.uniform(*conditions.direct_db)) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return tail


def equaliser_response(frequency: Wave, conditions: Conditions, rng: np.random.Generator) -> Wave:
    """Return a smooth amplitude response at `frequency` [bins] (Hz) through seven points between 60 and 7600 Hz."""
    points = np.log(np.geomspace(60, 7_600, 7))
    return _ratio(np.interp(np.log(frequency + 1), points, conditions.equaliser_db * rng.standard_normal(7)))


def band_response(frequency: Wave, conditions: Conditions, rng: np.random.Generator) -> Wave:
    """Return the amplitude response of a fourth-order Butterworth low-pass and high-pass, each with its probability."""
    response = np.ones_like(frequency)
    if rng.random() < conditions.filter_probability:
        response /= np.sqrt(1 + (frequency / rng.uniform(*conditions.low_pass)) ** 8)
    if rng.random() < conditions.filter_probability:
        response /= np.sqrt(1 + (rng.uniform(*conditions.high_pass) / (frequency + 1)) ** 8)
    return response


def set_peak(wave: Wave, conditions: Conditions, rng: np.random.Generator) -> Wave:
    """Scale to a random peak level; a wave of zeros stays one."""
    peak = float(np.max(np.abs(wave), initial=0.0))
    return wave * (_ratio(rng.uniform(*conditions.peak_db)) / (peak or 1.0))


def _ratio(decibels: Wave | float) -> Wave:
    """Return decibels as a ratio of amplitudes."""
    return np.asarray(10.0 ** (np.asarray(decibels) / 20))


def _padded(samples: int, extra: int) -> int:
    """Return a length suited to fast Fourier transforms, with at least `extra` samples against wrap-around."""
    return -(-(samples + extra) // 4096) * 4096


def _frequencies(length: int) -> Wave:
    return np.asarray(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), np.float64)
