"""Reads MP3 by its frames: libsndfile believes a length that is estimated, and misplaces samples where it seeks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from superb_eval.data.audio_formats import mpeg_frames
from superb_eval.data.audio_formats.mpeg_frames import DECODER_DELAY, FrameIndex
from superb_eval.data.audio_formats.stream import Waveform, mono_blocks, sequential_file, skip

SETTLING = 10
"""Frames decoded before a cut: overlap and filter bank reach back two of them."""

RESERVOIR = 511
"""Bytes by which a frame's data may begin before the frame."""


class MpegStream:
    """An MP3 file, cut on its frames and decoded from the beginning of each cut."""

    def __init__(self, path: Path, index: FrameIndex) -> None:
        self.rate = index.header.rate
        self.channels = index.header.channels
        self.frames = index.samples
        self._path, self._index = path, index

    def blocks(self, first: int, count: int) -> Iterator[Waveform]:
        """Yield a cut in blocks."""
        per_frame, index = self._index.header.samples, self._index
        begin = first + index.begin
        settled = max(0, begin // per_frame - SETTLING)
        earliest = self._reservoir_of(settled)
        end = min(len(index.starts), -(-(begin + count) // per_frame))
        with sequential_file()(io.BytesIO(self._content(earliest, settled, end))) as file:
            skip(file, per_frame - DECODER_DELAY + begin - earliest * per_frame)
            yield from mono_blocks(file, count)

    def _reservoir_of(self, frame: int) -> int:
        """Return the frame from which on the bit reservoir of `frame` is complete."""
        overhead = 4 + 2 + self._index.header.side
        missing = RESERVOIR
        while frame > 0 and missing > 0:
            frame -= 1
            missing -= max(0, self._index.sizes[frame] - overhead)
        return frame

    def _content(self, earliest: int, settled: int, end: int) -> bytes:
        """Return an MP3 file of some frames; those before `settled` fill the reservoir and decode to silence.

        A silent frame precedes them: with a length frame, libsndfile drops the decoder's delay, which lies in it.
        """
        content, reservoir = bytearray(), 0
        with self._path.open("rb") as file:
            for k in range(earliest, end):
                file.seek(self._index.starts[k])
                frame = file.read(self._index.sizes[k])
                if k == earliest:
                    silent, reservoir = _silenced(frame, 0)
                    content += _length_frame(frame[:4], end - earliest + 1) + silent
                if k < settled:
                    frame, reservoir = _silenced(frame, reservoir)
                content += frame
        return bytes(content)


def _silenced(frame: bytes, reservoir: int) -> tuple[bytes, int]:
    """Return a frame that decodes to silence, and the bytes in the reservoir after it.

    Its data are left. It refers to the whole reservoir, since a decoder carries over only what a frame refers to.
    """
    header = mpeg_frames.parse_header(frame[:4])
    if header is None or header.checksum:
        return frame, reservoir
    bits = 9 if header.version == 3 else 8
    most = 2**bits - 1
    side = (min(reservoir, most) << (16 - bits)).to_bytes(2, "big") + bytes(header.side - 2)
    return frame[:4] + side + frame[4 + header.side :], min(most, reservoir + len(frame) - 4 - header.side)


def _length_frame(header: bytes, frames: int) -> bytes:
    """Return a frame without audio that states a number of frames, so that no decoder estimates it."""
    # No checksum, no padding; 64 kbit/s in MPEG-2 and 80 in MPEG-1 leave room at every rate.
    plain = bytes([0xFF, header[1] | 1, header[2] & 0x0C | (8 if header[1] >> 3 & 3 != 3 else 6) << 4, header[3]])
    parsed = mpeg_frames.parse_header(plain)
    if parsed is None:
        raise ValueError(f"{plain.hex()} is no header of a frame")
    tag = b"Xing" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return (plain + bytes(parsed.side) + tag).ljust(parsed.size, b"\0")
