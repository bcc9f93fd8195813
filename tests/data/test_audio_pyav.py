"""What PyAV reads: M4A, AAC, WebM and others, begun and ended as recorded, cut exactly, decoded once."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from superb_eval.data import audio
from superb_eval.data.audio import Clip, Waveform
from superb_eval.data.audio_formats import pyav_stream
from superb_eval.errors import UserError
from tests.data.sounds import RATE, assert_cuts_are_slices, encode, read, voice, write


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
