"""Reading audio: samples equal the recorded ones, and damaged files are refused with their reason."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError

RATE = audio.SAMPLE_RATE


def tone(hertz: float, rate: int, seconds: float = 1.0, amplitude: float = 0.5) -> NDArray[np.float64]:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def noise(samples: int, seed: int = 0) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-(2**15), 2**15, samples).astype(np.int16)


def write(path: Path, samples: NDArray[np.generic], rate: int = RATE, **how: str) -> Path:
    soundfile.write(path, samples, rate, **how)
    return path


def with_data_size(path: Path, size: int) -> Path:
    """Rewrite a WAV's header as a program does that doesn't know the length."""
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    return path


def test_sixteen_bit_samples_are_read_exactly(tmp_path: Path) -> None:
    samples = noise(RATE)
    for name in ("a.flac", "a.wav"):
        samples_read = audio.read(Clip(write(tmp_path / name, samples)))
        assert samples_read.dtype == np.float32
        assert samples_read.shape == (RATE,)
        np.testing.assert_array_equal(samples_read, samples.astype(np.float32) / 32768)


def test_stereo_at_44100_hz_keeps_frequency_and_amplitude(tmp_path: Path) -> None:
    stereo = np.stack([tone(440, 44_100)] * 2, axis=1)
    samples_read = audio.read(Clip(write(tmp_path / "a.wav", stereo, 44_100, subtype="FLOAT")))
    assert samples_read.shape == (RATE,)
    inner = slice(800, -800)
    np.testing.assert_allclose(samples_read[inner], tone(440, RATE)[inner], atol=0.5 * 0.01)


def test_frequencies_above_8_khz_are_filtered_out_instead_of_aliased(tmp_path: Path) -> None:
    samples_read = audio.read(Clip(write(tmp_path / "a.wav", tone(10_000, 44_100), 44_100)))
    assert np.abs(samples_read[800:-800]).max() < 0.5 * 0.001


def test_the_mix_down_is_the_mean_of_the_channels(tmp_path: Path) -> None:
    left, right = noise(RATE, 1), noise(RATE, 2)
    samples_read = audio.read(Clip(write(tmp_path / "a.flac", np.stack([left, right], axis=1))))
    np.testing.assert_allclose(samples_read, (left.astype(np.float64) + right) / 2 / 32768, atol=1e-7)


def test_a_gain_of_minus_3_db_is_the_factor_that_sox_applies(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", noise(RATE))
    loud, soft = audio.read(Clip(path)), audio.read(Clip(path, gain_db=-3.0))
    np.testing.assert_allclose(soft, loud * 10 ** (-3 / 20), rtol=1e-6)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rate=st.integers(audio.MIN_RATE, 96_000), seconds=st.floats(0.06, 0.5))
def test_resampling_keeps_the_duration(tmp_path: Path, rate: int, seconds: float) -> None:
    samples = round(rate * seconds)
    clip = Clip(write(tmp_path / "a.wav", np.zeros(samples, dtype=np.int16), rate))
    assert abs(len(audio.read(clip)) - round(samples * RATE / rate)) <= 1
    assert audio.seconds(clip) == pytest.approx(samples / rate)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.integers(0, 7_000), length=st.integers(800, 1_000))
def test_a_cut_is_that_segment_of_the_file(tmp_path: Path, first: int, length: int) -> None:
    samples = noise(8_000)
    path = tmp_path / "a.flac"
    if not path.exists():
        write(path, samples)
    samples_read = audio.read(Clip(path, first / RATE, (first + length) / RATE))
    np.testing.assert_array_equal(samples_read, samples[first : first + length].astype(np.float32) / 32768)


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3"])
def test_lossy_formats_are_read(tmp_path: Path, name: str) -> None:
    samples_read = audio.read(Clip(write(tmp_path / name, tone(440, RATE))))
    assert abs(len(samples_read) - RATE) < RATE // 10
    assert np.abs(samples_read).max() == pytest.approx(0.5, rel=0.1)


def test_the_header_agrees_with_the_samples_read(tmp_path: Path) -> None:
    stereo = np.zeros((44_100, 2))
    header = audio.header(Clip(write(tmp_path / "a.wav", stereo, 44_100), start=0.25))
    assert (header.rate, header.channels, header.samples, header.seconds) == (44_100, 2, 33_075, 0.75)


@pytest.mark.parametrize("percent", [5, 50, 99])
def test_a_truncated_flac_is_refused(tmp_path: Path, percent: int) -> None:
    path = write(tmp_path / "a.flac", noise(48_000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * percent // 100])
    with pytest.raises(UserError, match=r"a\.flac: not readable as audio"):
        audio.read(Clip(path))


@pytest.mark.parametrize("name", ["a.wav", "a.aiff"])
def test_a_truncated_wav_is_refused_though_libsndfile_reads_it(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, noise(RATE))
    path.write_bytes(path.read_bytes()[:-1000])
    assert len(soundfile.read(path)[0]) < RATE
    for refuses in (audio.read, audio.header):
        with pytest.raises(UserError, match=r"truncated: 3.* of 3.* bytes of audio are there"):
            refuses(Clip(path))


def test_a_truncated_mp3_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp3", noise(48_000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"truncated: .* of 48000 samples"):
        audio.read(Clip(path))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF - 36])
def test_a_wav_written_to_a_pipe_is_accepted_without_its_length(tmp_path: Path, size: int) -> None:
    path = with_data_size(write(tmp_path / "a.wav", noise(RATE)), size)
    assert len(audio.read(Clip(path))) == RATE


def test_a_flac_that_states_an_impossible_length_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", noise(RATE))
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the upper 4 of 36 bits that count the samples
    path.write_bytes(content)
    with pytest.raises(UserError, match="no credible length"):
        audio.read(Clip(path))


def test_files_other_than_audio_are_refused(tmp_path: Path) -> None:
    for name in ("empty.wav", "empty.flac", "text.wav", "samples.raw"):
        (tmp_path / name).write_bytes(b"" if "empty" in name else b"id,path,speaker\n" * 100)
        with pytest.raises(UserError, match=f"{name}: not readable as audio"):
            audio.read(Clip(tmp_path / name))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.wav"):
        with pytest.raises(UserError, match="no such audio file"):
            audio.read(Clip(path))


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.zeros(0, dtype=np.int16))
    with pytest.raises(UserError, match="holds no samples"):
        audio.read(Clip(path))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_samples_are_refused(tmp_path: Path, value: float) -> None:
    samples = tone(440, RATE)
    samples[123] = value
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN or infinite samples"):
        audio.read(Clip(path))
    assert len(audio.read(Clip(path, start=0.5))) == RATE // 2


def test_a_sampling_rate_too_low_for_speech_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(RATE), 16)
    with pytest.raises(UserError, match="its rate is 16 Hz"):
        audio.read(Clip(path))


@pytest.mark.parametrize(("samples", "rate"), [(799, RATE), (399, 8_000), (1, 44_100)])
def test_too_short_a_file_is_refused(tmp_path: Path, samples: int, rate: int) -> None:
    path = write(tmp_path / "a.wav", noise(samples), rate)
    for refuses in (audio.read, audio.header):
        with pytest.raises(UserError, match=r"is too short; at least 0\.05 s are needed"):
            refuses(Clip(path))


def test_the_shortest_clip_is_accepted(tmp_path: Path) -> None:
    assert len(audio.read(Clip(write(tmp_path / "a.wav", noise(800))))) == 800


@pytest.mark.parametrize(
    ("start", "end"),
    [(-0.1, None), (1.0, None), (0, 1.02), (0.5, 0.5), (0.6, 0.5), (np.nan, None), (0, np.nan), (0, np.inf)],
)
def test_a_cut_outside_the_file_is_refused(tmp_path: Path, start: float, end: float | None) -> None:
    path = write(tmp_path / "a.wav", noise(RATE))
    with pytest.raises(UserError, match=r"lies outside the file, which lasts 1\.000 s"):
        audio.read(Clip(path, start, end))


def test_a_cut_whose_end_was_rounded_up_is_accepted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(RATE))
    assert len(audio.read(Clip(path, 0.5, 1.005))) == RATE // 2


def test_the_digest_depends_on_bytes_cut_and_gain_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(RATE))
    copy = write(tmp_path / "copy.wav", noise(RATE))
    clips = [Clip(path), Clip(path, 0.1), Clip(path, 0.0, 0.9), Clip(path, gain_db=-3.0), Clip(path, 0.1, 0.9)]
    assert len({audio.digest(clip) for clip in clips}) == len(clips)
    same = [Clip(path), Clip(copy), Clip(path, 0, gain_db=np.float64(0))]
    assert len({audio.digest(clip) for clip in same}) == 1
    before = audio.digest(Clip(path))
    write(path, noise(RATE, seed=1))
    os.utime(path, (0, 0))
    assert audio.digest(Clip(path)) != before


def test_the_digest_changes_where_size_and_time_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(RATE))
    before, state = audio.digest(Clip(path)), path.stat()
    write(path, noise(RATE, seed=1))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert audio.digest(Clip(path)) != before


@pytest.mark.parametrize(
    ("head", "lossy"),
    [
        (b"RIFF", False),
        (b"fLaC", False),
        (b"FORM", False),
        (b"ID3\x04", True),
        (b"\xff\xfb\x90\x64", True),
        (b"OggS", True),
        (b"\xff", False),
    ],
)
def test_what_was_read_by_estimated_lengths_is_other_audio_now(tmp_path: Path, head: bytes, lossy: bool) -> None:
    """Features stored before MP3 and Ogg were counted by frames are not reused; those of other formats are."""
    path = tmp_path / "file"
    path.write_bytes(head + b"more")
    before = hashlib.sha256(head + b"more" + b"|0.0|None|0.0").hexdigest()
    assert (audio.digest(Clip(path)) != before) == lossy


def test_the_digest_of_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read"):
        audio.digest(Clip(tmp_path / "none.wav"))
