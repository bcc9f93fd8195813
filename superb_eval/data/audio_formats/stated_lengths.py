"""Lengths that headers state: WAV and its relatives that hold less or more than that.

A length of 0, or of about 2 or 4 GiB, is what programs write that don't know it, into a pipe: all that is there is
read, as ffmpeg does. A header that states less than is there is refused, where sox and ffmpeg drop the rest.
"""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path
from typing import NamedTuple

from superb_eval.data.audio_formats.file_window import FileWindow
from superb_eval.errors import UserError

UNKNOWN = 0x7FFF_F000
"""Bytes from which on a 32-bit length stands for an unknown one."""

NEGLIGIBLE = 4096
"""Bytes behind the audio, and 1 % of it, that may be anything: tags, padding."""

_LENGTHS = re.compile(
    r"^ ?(?:(?P<bits64>riff|\s*Riff size)|data|SSND|\s*Data Size)\s*: (?P<stated>\d+) \(should be (?P<there>\d+)\)",
    flags=re.MULTILINE,
)
_FILE = re.compile(r"^Length : (\d+)$", flags=re.MULTILINE)
_DATA = re.compile(r"^data : (\d+)\b", flags=re.MULTILINE)


class WavData(NamedTuple):
    """Where a WAV's audio lies: its `fmt` chunk, its first byte, the bytes stated, and the unexplained ones behind."""

    form: bytes
    start: int
    stated: int
    rest: int


def check_complete(path: Path, libsndfile_log: str) -> None:
    """Refuse a file whose header states more bytes than it holds, which libsndfile reads without an error.

    Raises:
        UserError: it is truncated.
    """
    if "should be" not in libsndfile_log:
        return
    for match in _LENGTHS.finditer(libsndfile_log):
        stated, there = int(match["stated"]), int(match["there"])
        if there < stated < (2**62 if match["bits64"] else UNKNOWN):
            raise UserError(_truncated(path, there, stated))


def check_sphere(path: Path) -> None:
    """Refuse a NIST SPHERE file that is compressed, or shorter than its header states.

    Raises:
        UserError: see above.
    """
    with path.open("rb") as file:
        text = file.read(1024).decode("latin-1")
    if "shorten" in text or "wavpack" in text:
        raise UserError(
            f"{path}: is a compressed NIST SPHERE file, which is not read. "
            f"Convert it: sph2pipe -f wav {path.name} {path.stem}.wav"
        )
    numbers = {name: int(value) for name, value in re.findall(r"^(\w+) -i (\d+)", text, flags=re.MULTILINE)}
    size = re.match(r"NIST_1A\s+(\d+)", text)
    needed = ("sample_count", "sample_n_bytes", "channel_count")
    if size is None or not all(name in numbers for name in needed):
        return
    stated = numbers["sample_count"] * numbers["sample_n_bytes"] * numbers["channel_count"]
    there = path.stat().st_size - int(size[1])
    if there < stated:
        raise UserError(_truncated(path, there, stated))


def check_caf(path: Path) -> None:
    """Refuse a CAF that is shorter than its chunk of audio.

    Raises:
        UserError: it is truncated.
    """
    size, position = path.stat().st_size, 8
    with path.open("rb") as file:
        while position + 12 <= size:
            file.seek(position)
            name, length = struct.unpack(">4sq", file.read(12))
            there = size - position - 12
            if name == b"data" and there < length:
                raise UserError(
                    f"{path}: truncated: {there} of {length} bytes of audio are there. Copy the file again."
                )
            if length < 0:  # unknown, which the last chunk's may be
                return
            position += 12 + length


def _truncated(path: Path, there: int, stated: int) -> str:
    return f"{path}: truncated: {there} of {stated} bytes of audio are there. Copy the file again."


def repaired_wav(path: Path, libsndfile_log: str) -> FileWindow | None:
    """Return a WAV of unstated length with its length, or None where the header's is right.

    Raises:
        UserError: the header states less audio than there is.
    """
    file, data_chunk = _FILE.search(libsndfile_log), _DATA.search(libsndfile_log)
    if file is None or data_chunk is None or int(file[1]) - int(data_chunk[1]) <= _negligible(int(data_chunk[1])):
        return None
    data = find_wav_data(path)
    if data is None or data.rest <= _negligible(data.stated):
        return None
    if not data.stated:
        return wav_window(path, data)
    raise UserError(
        f"{path}: its header states {data.stated} bytes of audio, but {data.rest} more follow that are no chunk "
        "of WAV: it wasn't completed. Write the file again, for example by ffmpeg with -ignore_length 1."
    )


def _negligible(stated: int) -> int:
    return NEGLIGIBLE + stated // 100


def find_wav_data(path: Path) -> WavData | None:
    """Return where a WAV's audio lies, also behind a chunk of odd length without padding; None where there is none."""
    if path.stat().st_size < 44:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
            return None
        position, form = 12, b""
        while position + 8 <= len(content):
            name, size = content[position : position + 4], struct.unpack("<I", content[position + 4 : position + 8])[0]
            start = position + 8
            if name == b"data" and (size or content[start : start + 4] != b"data"):
                return WavData(form, start, size, _rest(content, start + size)) if form else None
            if name == b"fmt ":
                form = content[start : start + size]
            position = _next_chunk(content, start + size, size)
    return None


def _next_chunk(content: mmap.mmap, end: int, size: int) -> int:
    """Return where the chunk after one of `size` bytes begins: some programs leave the padding of odd ones out."""
    is_odd = size % 2 == 1
    return end + 1 if is_odd and not (_is_name(content[end : end + 4]) and content[end] != 0) else end


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)


def _rest(content: mmap.mmap, position: int) -> int:
    """Return the bytes from `position` on that are neither chunks nor zeros."""
    while position + 8 <= len(content) and _is_name(content[position : position + 4]):
        size = struct.unpack("<I", content[position + 4 : position + 8])[0]
        if position + 8 + size > len(content):
            break
        position = _next_chunk(content, position + 8 + size, size)
    rest = content[min(position, len(content)) :]
    return len(rest) if rest.strip(b"\0") else 0


def wav_window(path: Path, data: WavData) -> FileWindow:
    """Return a WAV's audio, up to the end of the file, behind a header that states its length."""
    there = path.stat().st_size - data.start
    length = there if data.stated in (0, there) or data.stated >= UNKNOWN else min(there, data.stated)
    length = min(length, 0xFFFF_FFFF - 100)
    head = b"WAVEfmt " + struct.pack("<I", len(data.form)) + data.form + b"data" + struct.pack("<I", length)
    header = b"RIFF" + struct.pack("<I", len(head) + length) + head
    return FileWindow(path, header, data.start, data.start + length)
