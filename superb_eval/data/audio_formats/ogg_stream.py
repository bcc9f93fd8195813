"""Reads Ogg (Vorbis, Opus): every stream of a chained file, and nothing of one whose end is missing.

Facts: RFC 3533 (pages), RFC 7845 (Opus: 80 ms settle its decoder).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from superb_eval.data.audio_formats.file_window import FileWindow
from superb_eval.data.audio_formats.stream import SndfileStream, Waveform, sequential_file
from superb_eval.errors import UserError

PREROLL = 1.0
"""Seconds decoded before a cut."""

SHORT = 10.0
"""Seconds up to which a file is decoded from its beginning, without a seek."""

_PAGE = struct.Struct("<4sBBqIIIB")
_BEGINS = 2


@dataclass
class OggLink:
    """One of the streams that follow one another in a file, from byte `start` to `stop`.

    `positions` are those of its pages: the sample after each page's last, by the codec's clock (Opus: 48 kHz).
    """

    start: int
    stop: int
    positions: list[int] = field(default_factory=list)


def read_links(path: Path) -> list[OggLink]:
    """Return the streams of an Ogg file.

    Raises:
        UserError: the file ends inside a page.
    """
    links: list[OggLink] = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        position, is_first = 0, False
        while (position := content.find(b"OggS", position)) >= 0:
            size, begins, granule = _page(content, position)
            if position + size > len(content):
                missing = position + size - len(content)
                raise UserError(
                    f"{path}: truncated: it ends inside a page of Ogg, {missing} bytes of it are missing. "
                    "Copy the file again."
                )
            if begins and not is_first:  # streams of several kinds begin together
                links.append(OggLink(position, position))
            is_first = begins
            position += size
            if links:
                links[-1].stop = position
                if granule > 0:
                    links[-1].positions.append(granule)
    return links


def _page(content: mmap.mmap, position: int) -> tuple[int, bool, int]:
    """Return a page's size in bytes, whether a stream begins with it, and its granule position."""
    fixed = content[position : position + _PAGE.size]
    if len(fixed) < _PAGE.size:
        return _PAGE.size, False, -1
    _, _, flags, granule, _, _, _, segments = _PAGE.unpack(fixed)
    lengths = content[position + _PAGE.size : position + _PAGE.size + segments]
    size = _PAGE.size + segments + sum(lengths)
    return size if len(lengths) == segments else size + segments - len(lengths), bool(flags & _BEGINS), granule


class OggStream:
    """The streams of an Ogg file one after another; they have one rate."""

    def __init__(self, parts: Sequence[SndfileStream]) -> None:
        self.rate = parts[0].rate
        self.channels = max(part.channels for part in parts)
        self.frames = sum(part.frames for part in parts)
        self._parts = parts

    def blocks(self, first: int, count: int) -> Iterator[Waveform]:
        """Yield a cut in blocks."""
        for part in self._parts:
            begin, end = max(0, first), min(part.frames, first + count)
            if begin < end:
                yield from part.blocks(begin, end - begin)
            first -= part.frames


def open_ogg(path: Path, file: Any, stack: ExitStack) -> OggStream:
    """Return the reader of an Ogg file, of which libsndfile opened the first stream; `stack` closes what it opens.

    Raises:
        UserError: it is truncated, or its streams have several rates.
    """
    links = read_links(path)
    parts = [_part(file, links[0] if links else OggLink(0, 0))]
    for link in links[1:]:
        window = stack.enter_context(FileWindow(path, start=link.start, stop=link.stop))
        parts.append(_part(stack.enter_context(sequential_file()(window)), link))
    rates = sorted({part.rate for part in parts})
    if len(rates) > 1:
        raise UserError(f"{path}: its streams have {' and '.join(map(str, rates))} Hz. Write it again at one rate.")
    return OggStream(parts)


def _part(file: Any, link: OggLink) -> SndfileStream:
    clock = 48_000 if file.subtype == "OPUS" else file.samplerate
    before_last = link.positions[-3] if len(link.positions) > 2 else 0
    is_short = file.frames <= SHORT * file.samplerate
    # libsndfile misplaces samples where it seeks into the last pages of Vorbis.
    last_seek = 0 if is_short else max(0, round((before_last / clock - PREROLL) * file.samplerate))
    return SndfileStream(file, preroll=round(PREROLL * file.samplerate), last_seek=last_seek)
