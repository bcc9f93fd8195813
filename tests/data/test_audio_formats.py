"""Formats of audio files: every sample is read, a cut is a slice of the whole, and a header agrees with its samples."""

from __future__ import annotations

import io
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from superb_eval.data import audio
from superb_eval.data.audio import Clip, Waveform
from superb_eval.data.audio_formats import flac_length, mpeg_frames, mpeg_stream, pyav_stream
from superb_eval.errors import UserError

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


# MP3


@pytest.fixture(scope="module")
def mp3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("mp3") / "a.mp3", voice(LENGTH))


def first_frames(content: bytes, count: int) -> int:
    """Return the bytes of the first frames."""
    at = 0
    for _ in range(count):
        header = mpeg_frames.parse_header(content[at : at + 4])
        assert header is not None
        at += header.size
    return at


def test_an_mp3_without_its_length_frame_is_read_to_its_end(mp3: Path, tmp_path: Path) -> None:
    content = mp3.read_bytes()
    bare = tmp_path / "bare.mp3"
    bare.write_bytes(content[first_frames(content, 1) :])
    assert soundfile.info(bare).frames < 200_000, "libsndfile estimates it, and reads no further"
    samples = read(bare)
    assert len(samples) == 321_408
    # The encoder's delay and the decoder's, which the length frame would have stated.
    np.testing.assert_allclose(samples[1105 : 1105 + LENGTH], read(mp3), atol=1e-4)


@pytest.mark.parametrize("frames", [0, 1, 145, 557])
def test_an_mp3_whose_length_frame_states_too_few_frames_is_read_to_its_end(
    mp3: Path, tmp_path: Path, frames: int
) -> None:
    content = bytearray(mp3.read_bytes())
    at = content.index(b"Xing") + 8
    assert struct.unpack(">I", content[at : at + 4]) == (558,)
    content[at : at + 4] = struct.pack(">I", frames)
    (tmp_path / "a.mp3").write_bytes(content)
    samples = read(tmp_path / "a.mp3")
    assert len(samples) == LENGTH
    np.testing.assert_allclose(samples, read(mp3), atol=1e-6)


def test_tags_around_and_within_an_mp3_are_no_audio(mp3: Path, tmp_path: Path) -> None:
    content = mp3.read_bytes()
    middle = first_frames(content, 300)
    id3 = b"ID3\x04\0\0\0\0\x20\0" + b"\xff\xfb" * 2048  # 4096 bytes that look like frames
    path = tmp_path / "a.mp3"
    path.write_bytes(id3 + content[:middle] + id3 + content[middle:] + b"TAG" + bytes(125))
    np.testing.assert_allclose(read(path), read(mp3), atol=1e-6)


@pytest.mark.parametrize("stated", [558, 100])
def test_fraunhofers_length_frame_is_no_audio(mp3: Path, tmp_path: Path, stated: int) -> None:
    content = mp3.read_bytes()
    size = first_frames(content, 1)
    tag = (content[:4] + bytes(32) + b"VBRI" + bytes(10) + stated.to_bytes(4, "big")).ljust(size, b"\0")
    (tmp_path / "a.mp3").write_bytes(tag + content[size:])
    (tmp_path / "bare.mp3").write_bytes(content[size:])
    np.testing.assert_array_equal(read(tmp_path / "a.mp3"), read(tmp_path / "bare.mp3"))


def test_two_mp3s_in_one_file_are_both_read(mp3: Path, tmp_path: Path) -> None:
    path = tmp_path / "twice.mp3"
    path.write_bytes(mp3.read_bytes() * 2)
    samples = read(path)
    assert len(samples) == 558 * 576 * 2 + 576 - 1105 - 303, "the second length frame is a silent one"
    np.testing.assert_allclose(samples[:LENGTH], read(mp3), atol=1e-6)


def test_a_truncated_mp3_is_refused_by_its_header_already(mp3: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3.read_bytes()[:-2_000])
    for refuses in (audio.read, audio.header):
        with pytest.raises(UserError, match=r"a\.mp3: truncated: .* of 320000 samples are there"):
            refuses(Clip(path, 1.0, 2.0))


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(("mode", "level"), [("CONSTANT", 0.0), ("CONSTANT", 0.99), ("VARIABLE", 0.9)])
def test_a_cut_of_an_mp3_is_a_slice_of_the_whole(tmp_path: Path, rate: int, mode: str, level: float) -> None:
    samples = voice(3 * rate + 321, rate)
    stereo = np.stack([samples, samples[::-1]], axis=1)
    path = write(tmp_path / "a.mp3", stereo, rate, format="MP3", bitrate_mode=mode, compression_level=level)
    header = audio.header(Clip(path))
    whole, rng = np.concatenate(list(_blocks(path, 0, header.samples))), np.random.default_rng(0)
    assert len(whole) == header.samples >= len(samples)
    for first in [*rng.integers(0, len(whole) - 2_000, 12), len(whole) - 2_000]:
        (cut,) = _blocks(path, int(first), 2_000)
        np.testing.assert_allclose(cut, whole[first : first + 2_000], atol=1e-6)


def _blocks(path: Path, first: int, count: int) -> list[Waveform]:
    index = mpeg_frames.read_index(path)
    assert index is not None
    return list(mpeg_stream.MpegStream(path, index).blocks(first, count))


def test_a_whole_mp3_is_what_libsndfile_decodes(mp3: Path) -> None:
    np.testing.assert_array_equal(read(mp3), soundfile.read(mp3, dtype="float32")[0])


def test_a_cut_of_an_mp3_decodes_the_frames_near_it_alone(mp3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    content = mpeg_stream.MpegStream._content

    def counted(self: mpeg_stream.MpegStream, earliest: int, settled: int, end: int) -> bytes:
        decoded.append(end - earliest)
        return content(self, earliest, settled, end)

    monkeypatch.setattr(mpeg_stream.MpegStream, "_content", counted)
    for k in range(100):
        audio.read(Clip(mp3, k / 5, (k + 1) / 5))
    assert sum(decoded) < 100 * (200 * 16 / 576 + mpeg_stream.SETTLING + 14)


# Ogg


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("seconds", [1.5, 25.0])
def test_a_cut_of_an_ogg_is_a_slice_of_the_whole(tmp_path: Path, subtype: str, seconds: float) -> None:
    samples = voice(round(seconds * RATE) + 77)
    path = write(tmp_path / "a.ogg", samples, format="OGG", subtype=subtype)
    assert len(read(path)) == len(samples)
    assert_cuts_are_slices(path, seconds, np.random.default_rng(0))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_every_stream_of_a_chained_ogg_is_read(tmp_path: Path, subtype: str) -> None:
    first = write(tmp_path / "1.ogg", voice(20_000), format="OGG", subtype=subtype)
    second = write(tmp_path / "2.ogg", voice(30_000, seed=1), format="OGG", subtype=subtype)
    path = tmp_path / "both.ogg"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    assert soundfile.info(path).frames == 20_000, "libsndfile drops what follows"
    whole = np.concatenate([read(first), read(second)])
    np.testing.assert_array_equal(read(path), whole)
    np.testing.assert_allclose(read(path, 1.0, 2.0), whole[16_000:32_000], atol=1e-4)


def test_streams_of_two_rates_in_one_ogg_are_refused(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{rate}.ogg", voice(rate, rate), rate) for rate in (8_000, 16_000)]
    path = tmp_path / "both.ogg"
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    with pytest.raises(UserError, match="its streams have 8000 and 16000 Hz"):
        audio.read(Clip(path))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.999])
def test_a_truncated_ogg_is_refused(tmp_path: Path, subtype: str, share: float) -> None:
    path = write(tmp_path / "a.ogg", voice(80_000), format="OGG", subtype=subtype)
    content = path.read_bytes()
    path.write_bytes(content[: max(8, round(share * len(content)))])
    for refuses in (audio.read, audio.header):
        with pytest.raises(UserError, match="truncated: it ends inside a page of Ogg"):
            refuses(Clip(path))


# What PyAV reads


@pytest.mark.parametrize(
    ("name", "codec", "rate", "delay"),
    [
        ("a.m4a", "aac", 16_000, 0),
        ("a.mp4", "aac", 44_100, 0),
        ("a.m4a", "alac", 16_000, 0),
        ("a.mkv", "aac", 16_000, 0),
        ("a.webm", "libopus", 48_000, 0),
        ("a.aac", "aac", 16_000, 1024),  # no container states the encoder's delay
    ],
)
def test_what_pyav_reads_begins_and_ends_where_the_recording_does(
    tmp_path: Path, name: str, codec: str, rate: int, delay: int
) -> None:
    samples = voice(5 * rate + 123, rate)
    path = encode(tmp_path / name, samples, rate, codec)
    header = audio.header(Clip(path))
    assert (header.rate, header.channels) == (rate, 1)
    # MP4 states its length in milliseconds; without a container the last frame is whole.
    tolerated = {"a.m4a": rate // 1000, "a.mp4": rate // 1000, "a.webm": 960}.get(name, 2 * 1024)
    assert 0 <= header.samples - len(samples) - delay <= tolerated or name == "a.webm"
    assert abs(header.samples - len(samples) - delay) <= tolerated
    reference = audio.read(Clip(write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")))
    shift, count = round(delay * RATE / rate), 4 * RATE
    found = audio.read(Clip(path))[shift : shift + count]
    assert np.corrcoef(found, reference[:count])[0, 1] > 0.97


@pytest.mark.parametrize("name", ["a.m4a", "a.aac", "a.mkv"])
def test_a_cut_of_an_aac_is_a_slice_of_the_whole(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, voice(5 * RATE))
    assert_cuts_are_slices(path, 5.0, np.random.default_rng(0))


def test_stereo_and_whole_numbers_are_read_by_pyav_as_by_libsndfile(tmp_path: Path) -> None:
    samples = np.round(voice(RATE) * 2**15) / 2**15
    path = encode(tmp_path / "a.mkv", samples.astype(np.float32), codec="pcm_s16le")
    np.testing.assert_allclose(read(path), samples, atol=2**-15)


def test_many_cuts_by_many_threads_decode_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.m4a", voice(5 * RATE))
    whole, decoded, decode = audio.read(Clip(path)), [], pyav_stream._decode

    def counted(path: Path) -> pyav_stream.DecodedFile:
        decoded.append(path)
        return decode(path)

    monkeypatch.setattr(pyav_stream, "_decode", counted)
    monkeypatch.setattr(pyav_stream, "_RECENT", pyav_stream.RecentFiles())
    monkeypatch.setattr(pyav_stream, "IN_MEMORY", 1_000)  # on disk
    begin = threading.Barrier(4)

    def cut(k: int) -> Waveform:
        if k < 4:
            begin.wait(timeout=60)
        return audio.read(Clip(path, k / 10, k / 10 + 0.5))

    with ThreadPoolExecutor(4) as pool:
        cuts = list(pool.map(cut, range(40)))
    assert decoded == [path]
    for k, samples in enumerate(cuts):
        np.testing.assert_array_equal(samples, whole[k * 1600 : k * 1600 + 8000])


def test_a_file_that_changed_is_decoded_again_and_few_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    for k in range(pyav_stream.KEPT + 2):
        encode(path, voice(RATE + 1024 * k))
        assert abs(len(read(path)) - RATE - 1024 * k) < 20
        path.rename(tmp_path / f"{k}.m4a")
    assert len(pyav_stream._RECENT._files) <= pyav_stream.KEPT


def test_without_pyav_one_sentence_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [encode(tmp_path / name, voice(RATE)) for name in ("a.m4a", "a.aac", "a.mkv")]
    monkeypatch.setitem(sys.modules, "av", None)
    for path in paths:
        with pytest.raises(UserError, match=r'PyAV does: pip install "superb-eval\[codecs\]"'):
            audio.header(Clip(path))


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_m4a_is_refused(tmp_path: Path, share: float) -> None:
    path = encode(tmp_path / "a.m4a", voice(10 * RATE), movflags="faststart")
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    for refuses in (audio.read, audio.header):
        with pytest.raises(UserError, match=r"a\.m4a: (truncated: .* samples are there|not readable as audio)"):
            refuses(Clip(path))


def test_tags_in_another_encoding_are_no_fault(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.m4a", voice(RATE), title="aaaaaaaa")
    content = path.read_bytes()
    assert b"aaaaaaaa" in content
    path.write_bytes(content.replace(b"aaaaaaaa", b"\xe4" * 8))
    assert abs(len(read(path)) - RATE) <= 16


def test_a_file_named_as_an_address_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encode(Path("a.m4a"), voice(RATE)).rename("concat:a.m4a|b.m4a")
    assert abs(len(read(Path("concat:a.m4a|b.m4a"))) - RATE) <= 16


def test_a_damaged_container_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(2_000))
    pytest.importorskip("av")
    with pytest.raises(UserError, match=r"a\.m4a: not readable as audio"):
        audio.read(Clip(path))


# WAV and its relatives


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


NOISE = np.random.default_rng(0).integers(-(2**15), 2**15, RATE).astype(np.int16)

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


KINDS = ("mp3", "ogg", "opus", "m4a")


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    length=st.integers(2_000, 20_000), start=st.integers(0, 1_000), kind=st.sampled_from(["mp3", "ogg", "opus", "m4a"])
)
def test_headers_agree_with_samples_of_lossy_files(tmp_path: Path, length: int, start: int, kind: str) -> None:
    path = tmp_path / f"{length}.{kind}"
    if kind == "m4a":
        encode(path, voice(length))
        assert abs(len(read(path)) - length) <= 16
    else:
        write(path, voice(length), **({"format": "OGG", "subtype": "OPUS"} if kind == "opus" else {}))
        assert len(read(path)) == length
    assert len(read(path, start / RATE, (start + 1_000) / RATE)) == 1_000


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


# FLAC


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


# What isn't audio


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty, 0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page"),
        (b"../.git/annex/objects/a.wav\n", r"text that begins with '\.\./\.git/annex/objects/a\.wav'"),
        (b"id,path\n" * 200, "text that begins with 'id,path'"),
        (b"\x1f\x8b\x08\0" + bytes(100), "a gzip archive. Unpack it"),
        (b"PK\x03\x04" + bytes(100), "a zip archive. Unpack it"),
        (bytes(5_000), "WAV, FLAC, OGG, Opus, MP3, AIFF"),
        (np.random.default_rng(0).bytes(50_000), "WAV, FLAC, OGG, Opus, MP3, AIFF"),
    ],
)
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a"])
def test_what_is_no_audio_is_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    for refuses in (audio.read, audio.header):
        with pytest.raises(UserError, match=f"{name}: not readable as audio.*{reason}"):
            refuses(Clip(tmp_path / name))


def test_broken_links_and_loops_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").symlink_to("none.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    for name, target in (("broken.wav", "none.wav"), ("loop.wav", "loop.wav")):
        with pytest.raises(UserError, match=f"no such audio file: it is a link to {target}, which leads to none"):
            audio.read(Clip(tmp_path / name))


def test_a_window_is_its_prefix_and_a_range_of_the_file(tmp_path: Path) -> None:
    from superb_eval.data.audio_formats.file_window import FileWindow

    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(100)))
    with FileWindow(path, b"ab", 10, 20) as window:
        assert window.read() == b"ab" + bytes(range(10, 20)) and window.read() == b""
        assert window.seek(-3, io.SEEK_END) == 9 and window.read(2) == bytes([17, 18]) and window.tell() == 11
        assert window.seek(1) == 1 and window.read(3) == b"b" + bytes([10, 11]) and window.seek(-1, io.SEEK_CUR) == 3


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, samples = tmp_path_factory.mktemp("originals"), voice(12_000)
    names = ("a.mp3", "a.ogg", "a.flac", "a.wav", "a.caf", "a.w64", "a.aiff")
    written = [write(folder / name, samples) for name in names]
    written += [write(folder / "opus.ogg", samples, format="OGG", subtype="OPUS")]
    return written + [encode(folder / name, samples) for name in ("a.m4a", "a.mkv", "a.aac")]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_and_nothing_else(
    originals: list[Path], tmp_path: Path, data: st.DataObject
) -> None:
    original = data.draw(st.sampled_from(originals))
    content = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content) - 1, 300)) | st.integers(0, len(content) - 1))
        removed = data.draw(st.integers(0, 200))
        content[at : at + removed] = data.draw(st.binary(max_size=8))
        content = content or bytearray(b"x")
    path = tmp_path / original.name
    path.write_bytes(content)
    for reads in (audio.header, audio.read):
        message = f"{path}: "
        try:
            reads(Clip(path))
        except UserError as error:
            message = str(error)
        assert message.startswith(f"{path}: ") and "\n" not in message
