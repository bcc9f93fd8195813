"""Formats of audio files: headers agree with samples, damage is refused, and what is no audio is named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError
from tests.data.sounds import RATE, encode, read, voice, write

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
