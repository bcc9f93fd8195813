"""The frames of an MP3 file: how many there are, where they lie, and what the file's length frame states.

Facts: ISO 11172-3 and 13818-3 (headers, side information, bit reservoir); the tags `Xing`/`Info`, LAME's extension with
the encoder's delay and padding, and Fraunhofer's `VBRI`.
"""

from __future__ import annotations

import mmap
from array import array
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from superb_eval.errors import UserError

DECODER_DELAY = 529
"""Samples by which a decoder's output lags behind the encoder's input."""

_SEARCHED = 2**16
"""Bytes searched for the next frame where one is not where it should be."""

_KILOBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KILOBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_LAYER_3 = 1


class FrameHeader(NamedTuple):
    """A frame's header: `size` in bytes, `rate` in Hz, `samples` per channel, `side` bytes of side information."""

    size: int
    rate: int
    samples: int
    channels: int
    side: int
    checksum: bool
    version: int


@dataclass(frozen=True)
class FrameIndex:
    """The audio frames of a file, without its length frame.

    `starts` and `sizes` are in bytes. `begin` and `end` are the samples that the encoder added before and after.
    """

    header: FrameHeader
    starts: array[int]
    sizes: array[int]
    begin: int = 0
    end: int = 0

    @property
    def samples(self) -> int:
        """Samples of each channel that the encoder was given."""
        return len(self.starts) * self.header.samples - self.begin - self.end


def parse_header(content: bytes) -> FrameHeader | None:
    """Return the header that four bytes are, or None where they are no Layer III header of a known bit rate."""
    if len(content) < 4 or content[0] != 0xFF or content[1] & 0xE0 != 0xE0:
        return None
    version, layer, bits, rate = content[1] >> 3 & 3, content[1] >> 1 & 3, content[2] >> 4, content[2] >> 2 & 3
    if version not in _RATES or layer != _LAYER_3 or bits in (0, 15) or rate == 3:
        return None
    hertz, is_mono = _RATES[version][rate], content[3] >> 6 == 3
    kilobits = (_KILOBITS_1 if version == 3 else _KILOBITS_2)[bits]
    size = (144 if version == 3 else 72) * kilobits * 1000 // hertz + (content[2] >> 1 & 1)
    side = (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)
    samples = 1152 if version == 3 else 576
    return FrameHeader(size, hertz, samples, 1 if is_mono else 2, side, not content[1] & 1, version)


def read_index(path: Path) -> FrameIndex | None:
    """Return the index of a file, or None where it isn't MP3; the last files' are cached.

    Raises:
        UserError: fewer frames are there than the length frame states, or the file can't be read.
    """
    state = path.stat()
    return _index(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


@lru_cache(maxsize=64)
def _index(path: Path, *state: int) -> FrameIndex | None:
    del state  # part of the cache's key, so that a changed file is read again
    if not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        first = _next_frame(content, 0, None)
        header = None if first is None else parse_header(content[first : first + 4])
        if first is None or header is None:
            return None
        starts, sizes = _walk(content, first, header)
        if len(starts) < 2:  # chance finds one in any file
            return None
        return _without_tag(path, content, FrameIndex(header, starts, sizes))


def _walk(content: mmap.mmap, first: int, header: FrameHeader) -> tuple[array[int], array[int]]:
    """Return the positions and sizes of all complete frames of one rate, past what lies between them."""
    starts, sizes = array("q"), array("q")
    known: dict[bytes, int] = {}
    position: int | None = first
    while position is not None and position + 4 <= len(content):
        key = content[position : position + 3]  # the fourth byte doesn't change the size
        size = known.get(key)
        if size is None:
            found = parse_header(content[position : position + 4])
            size = known[key] = found.size if found is not None and _alike(found, header) else 0
        if size and position + size <= len(content):
            starts.append(position)
            sizes.append(size)
            position += size
        elif size:
            break
        else:
            position = _next_frame(content, position, header)
    return starts, sizes


def _alike(one: FrameHeader, other: FrameHeader) -> bool:
    return (one.rate, one.version) == (other.rate, other.version)


def _next_frame(content: mmap.mmap, position: int, like: FrameHeader | None) -> int | None:
    """Return where the next frame begins that another one follows, past ID3 tags; None where none is near."""
    while content[position : position + 3] == b"ID3" and position + 10 <= len(content):
        a, b, c, d = content[position + 6 : position + 10]
        footer = 10 if content[position + 5] & 0x10 else 0
        position += 10 + (a << 21 | b << 14 | c << 7 | d) + footer
    limit = min(len(content), position + _SEARCHED)
    while (position := content.find(b"\xff", position, limit)) >= 0:
        header = parse_header(content[position : position + 4])
        if header is not None and (like is None or _alike(header, like)):
            after = position + header.size
            following = parse_header(content[after : after + 4])
            if after == len(content) or (following is not None and _alike(following, header)):
                return position
        position += 1
    return None


def _without_tag(path: Path, content: mmap.mmap, index: FrameIndex) -> FrameIndex:
    """Return the index without a length frame, and with what it states of delay and padding."""
    start, size = index.starts[0], index.sizes[0]
    frame = content[start : start + size]
    header = parse_header(frame[:4])
    tag = 4 + (header.side if header is not None else 0)
    if frame[tag : tag + 4] not in (b"Xing", b"Info"):
        if frame[36:40] != b"VBRI":
            return index
        return _checked(path, content, index, int.from_bytes(frame[50:54], "big"), 0, (0, 0))
    flags = int.from_bytes(frame[tag + 4 : tag + 8], "big")
    at = tag + 8
    fields = []
    for bit, width in ((1, 4), (2, 4), (4, 100), (8, 4)):
        fields.append(int.from_bytes(frame[at : at + 4], "big") if flags & bit else 0)
        at += width if flags & bit else 0
    trimmed = (0, 0)
    if len(frame) >= at + 24 and frame[at]:  # the encoder's name, then 12 bytes, then delay and padding
        both = int.from_bytes(frame[at + 21 : at + 24], "big")
        trimmed = (both >> 12) + DECODER_DELAY, max(0, (both & 0xFFF) - DECODER_DELAY)
    return _checked(path, content, index, fields[0], fields[1], trimmed)


def _checked(
    path: Path, content: mmap.mmap, index: FrameIndex, stated: int, length: int, trimmed: tuple[int, int]
) -> FrameIndex:
    """Return the index without its first frame, which states `stated` frames in `length` bytes (0: not stated)."""
    start, per_frame = index.starts[0], index.header.samples
    there = FrameIndex(index.header, index.starts[1:], index.sizes[1:])
    count = len(there.starts)
    # Some encoders count the length frame too, so that one frame too many is an end only where bytes are missing.
    if stated > count + 1 or (stated == count + 1 and start + length > len(content)):
        have, want = (frames * per_frame - sum(trimmed) for frames in (count, stated))
        raise UserError(f"{path}: truncated: {max(0, have)} of {want} samples are there. Copy the file again.")
    if sum(trimmed) >= count * per_frame:
        return there
    return FrameIndex(there.header, there.starts, there.sizes, *trimmed)
