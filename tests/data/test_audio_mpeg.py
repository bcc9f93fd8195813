"""MP3: every frame is read, whatever the length frame states, and a cut is a slice of the whole."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from superb_eval.data import audio
from superb_eval.data.audio import Clip, Waveform
from superb_eval.data.audio_formats import mpeg_frames, mpeg_stream
from superb_eval.errors import UserError
from tests.data.sounds import LENGTH, read, voice, write


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
