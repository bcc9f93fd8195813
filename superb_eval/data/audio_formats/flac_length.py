"""The length of a FLAC whose header states none, as encoders write it into a pipe: its last frame's number.

Facts: RFC 9639 (stream information, frame headers, checksums).
"""

from __future__ import annotations

import mmap
from pathlib import Path

from superb_eval.data.audio_formats.file_window import FileWindow
from superb_eval.errors import UserError

_FIRST_BYTES = (0xF8, 0xF9)
"""Second bytes of a frame: its number counts frames of one length, or samples."""

_SEARCHED = 2**20
"""Bytes at the end of a file that are searched for its last frame."""


def counted_flac(path: Path) -> FileWindow:
    """Return a FLAC whose header states no length, with the length that its last frame ends at.

    Raises:
        UserError: its last frame is incomplete.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(b"fLaC")
        header = bytearray(content[: start + 26])
        total = _end_of_last_frame(content, int.from_bytes(header[start + 10 : start + 12], "big"))
    if not total:
        raise UserError(
            f"{path}: truncated: its header states no length, and its last frame is incomplete. Copy the file again."
        )
    header[start + 21] = header[start + 21] & 0xF0 | total >> 32
    header[start + 22 : start + 26] = (total & 0xFFFF_FFFF).to_bytes(4, "big")
    return FileWindow(path, bytes(header), len(header))


def _end_of_last_frame(content: mmap.mmap, block: int) -> int:
    """Return the sample after the last frame's last; 0 where no intact frame ends with the file."""
    end = len(content)
    if content[max(0, end - 128) : max(0, end - 125)] == b"TAG":
        end -= 128
    position, earliest = end, max(0, end - _SEARCHED)
    while (position := content.rfind(b"\xff", earliest, position)) >= 0:
        if position + 16 <= end and content[position + 1] in _FIRST_BYTES:
            total = _frame_end(content[position : position + 16], block)
            if total and _checksum(content[position:end], 0x8005, 16) == 0:
                return total
    return 0


def _frame_end(head: bytes, block: int) -> int:
    """Return the sample after a FLAC frame's last, from its header; 0 where its checksum is wrong."""
    first = head[4]
    extra = 0 if first < 0x80 else next((n for n in range(1, 7) if first >> (6 - n) & 1 == 0), 0)
    number = first if not extra else first & (0x3F >> extra)
    for byte in head[5 : 5 + extra]:
        number = number << 6 | byte & 0x3F
    at, code = 5 + extra, head[2] >> 4
    sizes = {1: 192, **{n: 576 << (n - 2) for n in range(2, 6)}, **{n: 256 << (n - 8) for n in range(8, 16)}}
    wide = {6: 1, 7: 2}.get(code, 0)
    samples = int.from_bytes(head[at : at + wide], "big") + 1 if wide else sizes.get(code, 0)
    at += wide + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if at >= len(head) or _checksum(head[: at + 1], 0x07, 8):
        return 0
    return samples + (number if head[1] == 0xF9 else number * block)


def _checksum(content: bytes, polynomial: int, bits: int) -> int:
    """Return FLAC's checksum of some bytes: 0 where they end with their own."""
    top, mask, value = 1 << (bits - 1), (1 << bits) - 1, 0
    for byte in content:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value & top else 0)) & mask
    return value
