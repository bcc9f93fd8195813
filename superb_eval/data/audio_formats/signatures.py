"""What a file is that libsndfile doesn't read, by its first bytes: the reason that its error message gives."""

from __future__ import annotations

from pathlib import Path

CONTAINERS = (
    (4, b"ftyp", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\x30\x26\xb2\x75", "asf"),
    (0, b"#!AMR", "amr"),
    (0, b"caff", "caf"),
    (0, b"OggS", "ogg"),
    (0, b"RIFF", "wav"),
    (0, b"FORM", "aiff"),
)
"""Formats that ffmpeg's libraries read: where their mark is, the mark, and the name there."""

_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<error", b"<head")
_ARCHIVES = {b"\x1f\x8b": "a gzip archive", b"PK\x03\x04": "a zip archive", b"BZh": "a bzip2 archive"}


def container(path: Path) -> str | None:
    """Return ffmpeg's name of a file's format, or None where it is none that its libraries are asked to read."""
    with path.open("rb") as file:
        head = file.read(16)
    for at, mark, name in CONTAINERS:
        if head[at : at + len(mark)] == mark:
            return name
    # AAC without a container: twelve bits of synchronisation, and layer 0.
    return "aac" if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 else None


def other_than_audio(path: Path) -> str | None:
    """Return what a file is and what to do, where it is certainly no audio; else None."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "it is empty, 0 bytes. Copy the file again."
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file that it points to. Run `git lfs pull` in its repository."
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith(_PAGES):
        return "it is a web page (HTML or XML), such as a login or an error. Download the file again."
    for mark, name in _ARCHIVES.items():
        if head.startswith(mark):
            return f"it is {name}. Unpack it."
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head) and b"\0" not in head:
        return f"it is text that begins with {_shown(head)}. Copy the audio there."
    return None


def _shown(head: bytes) -> str:
    return repr(head.decode("utf8", errors="replace").split("\n")[0][:40])
