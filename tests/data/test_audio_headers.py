"""WAV and its relatives, FLAC: all samples are read, or the header that states others is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.data.audio_formats import flac_length
from superb_eval.errors import UserError
from tests.data.sounds import NOISE, RATE, read, voice, write


def wav(
    samples: NDArray[np.int16],
    size: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
    riff: int | None = None,
) -> bytes:
    data = samples.tobytes()
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + before
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data + after
    return b"RIFF" + struct.pack("<I", riff or len(body)) + body


def chunk(name: bytes, content: bytes, padded: bool = True) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2 if padded else 0)


READABLE = {
    "plain": wav(NOISE),
    "no length": wav(NOISE, 0, riff=36),
    "no length of the data": wav(NOISE, 0),
    "an odd list": wav(NOISE, before=chunk(b"LIST", b"INFOx")),
    "an odd list without padding": wav(NOISE, before=chunk(b"LIST", b"INFOx", padded=False)),
    "an odd list without padding, no length": wav(NOISE, 0, before=chunk(b"LIST", b"INFOx", padded=False)),
    "a long list": wav(NOISE, before=chunk(b"LIST", b"INFO" + bytes(9_000))),
    "a list behind": wav(NOISE, after=chunk(b"LIST", b"INFO" + bytes(9_000))),
    "zeros behind": wav(NOISE, after=bytes(20_000)),
    "a tag behind": wav(NOISE, after=b"TAG" + b"x" * 125),
    "an empty data chunk before": wav(NOISE, before=chunk(b"data", b"")),
    **{f"a length of {size:#x}": wav(NOISE, size, riff=size) for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF - 36)},
}


@pytest.mark.parametrize("name", READABLE)
def test_all_samples_of_a_wav_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(READABLE[name])
    np.testing.assert_array_equal(read(path), NOISE / np.float32(2**15))
    np.testing.assert_array_equal(read(path, 0.25, 0.5), NOISE[4_000:8_000] / np.float32(2**15))


@pytest.mark.parametrize("size", [2, 4_000, 16_000, 26_000])
def test_a_wav_that_states_less_than_it_holds_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(NOISE, size))
    for refuses in (audio.read, audio.header):
        with pytest.raises(UserError, match=f"states {size} bytes of audio, but {2 * RATE - size} more follow"):
            refuses(Clip(path))


@pytest.mark.parametrize(
    ("form", "subtype"),
    [("W64", "PCM_16"), ("RF64", "PCM_16"), ("AU", "PCM_16"), ("AIFF", "PCM_24"), ("WAVEX", "PCM_24"), ("WAV", "ULAW"),
     ("WAV", "DOUBLE"), ("CAF", "PCM_16"), ("NIST", "PCM_16")],
)  # fmt: skip
def test_a_truncated_file_is_refused_in_every_format(tmp_path: Path, form: str, subtype: str) -> None:
    path = write(tmp_path / "a.wav", voice(RATE), format=form, subtype=subtype)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for refuses in (audio.read, audio.header):
        with pytest.raises(UserError, match=r"a\.wav: (truncated|not readable as audio)"):
            refuses(Clip(path))


PRECISIONS = {
    ("WAV", "PCM_U8"): 2.0**-7,
    ("WAV", "PCM_24"): 2.0**-23,
    ("WAV", "PCM_32"): 2.0**-23,
    ("WAV", "FLOAT"): 0.0,
    ("WAV", "DOUBLE"): 0.0,
    ("WAV", "ULAW"): 0.02,
    ("WAV", "ALAW"): 0.02,
    ("WAVEX", "PCM_16"): 2.0**-15,
    ("RF64", "PCM_16"): 2.0**-15,
    ("W64", "PCM_24"): 2.0**-23,
    ("AIFF", "PCM_16"): 2.0**-15,
    ("AIFF", "ULAW"): 0.02,
    ("AU", "PCM_16"): 2.0**-15,
    ("CAF", "PCM_24"): 2.0**-23,
    ("NIST", "PCM_16"): 2.0**-15,
    ("FLAC", "PCM_24"): 2.0**-23,
}


@pytest.mark.parametrize(("form", "subtype"), PRECISIONS)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(length=st.integers(800, 20_000), channels=st.integers(1, 3))
def test_headers_agree_with_samples_in_every_format(
    tmp_path: Path, form: str, subtype: str, length: int, channels: int
) -> None:
    samples = np.stack([voice(length)] * channels, axis=1)
    path = write(tmp_path / "a.audio", samples, format=form, subtype=subtype)
    found = read(path)
    if (form, subtype) == ("AIFF", "ULAW") and length * channels % 2:
        found = found[:length]  # libsndfile writes the byte of padding as a sample
    assert len(found) == length
    np.testing.assert_allclose(found, samples[:, 0], atol=PRECISIONS[form, subtype] + 1e-7)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_values_beyond_one_are_kept(tmp_path: Path, subtype: str) -> None:
    loud = 3.0 * voice(RATE)
    assert np.abs(loud).max() > 1.2
    np.testing.assert_array_equal(read(write(tmp_path / "a.wav", loud, subtype=subtype)), loud)


def test_compressed_sphere_files_are_refused_with_the_program_that_converts_them(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    fields = "sample_count -i 16000\nsample_rate -i 16000\nchannel_count -i 1\nsample_n_bytes -i 2\n"
    coding = "sample_coding -s26 pcm,embedded-shorten-v2.00\n"
    path.write_bytes(f"NIST_1A\n   1024\n{fields}{coding}end_head\n".encode().ljust(1024) + b"ajkg\2" + bytes(9_000))
    with pytest.raises(UserError, match=r"compressed NIST SPHERE file.*sph2pipe -f wav a\.wav a\.wav"):
        audio.read(Clip(path))


def test_a_flac_without_a_length_in_its_header_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", NOISE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    for tag in (b"", b"TAG" + bytes(125)):
        path.write_bytes(content + tag)
        np.testing.assert_array_equal(read(path), NOISE / np.float32(2**15))
        np.testing.assert_array_equal(read(path, 0.25, 0.5), NOISE[4_000:8_000] / np.float32(2**15))
    path.write_bytes(content[:-1_000])
    for refuses in (audio.read, audio.header):
        with pytest.raises(UserError, match="truncated: its header states no length, and its last frame is incomplete"):
            refuses(Clip(path))


@pytest.mark.timeout(20)
def test_a_cut_of_a_truncated_flac_is_read_where_it_is_intact(tmp_path: Path) -> None:
    samples = np.tile(NOISE, 30)
    path = write(tmp_path / "a.flac", samples)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    np.testing.assert_array_equal(read(path, 3.0, 4.0), NOISE / np.float32(2**15))
    for cut in ((), (0.0, 30.0), (14.0, 16.0), (20.0, 21.0), (29.0, None)):
        with pytest.raises(UserError, match=r"a\.flac: not readable as audio.*truncated or damaged: copy the file"):
            audio.read(Clip(path, *cut))


def test_checksums_are_those_of_flac() -> None:
    assert flac_length._checksum(b"123456789", 0x07, 8) == 0xF4
    assert flac_length._checksum(b"123456789", 0x8005, 16) == 0xFEE8
