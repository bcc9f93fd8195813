"""What a reader of an audio file offers, and the reader of everything that libsndfile decodes exactly."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]

BLOCK = 2**22
"""Samples decoded at a time."""


class AudioStream(Protocol):
    """An open audio file: `rate` in Hz, `frames` samples of each of its `channels`."""

    rate: int
    channels: int
    frames: int

    def blocks(self, first: int, count: int) -> Iterator[Waveform]:
        """Yield `count` samples from sample `first` on, channels averaged, in blocks; fewer where the file ends."""


class SndfileStream:
    """A file that libsndfile reads.

    `preroll` samples are decoded before each cut and dropped, so that a decoder with a memory has settled; no seek goes
    beyond `last_seek` (None: anywhere), since libsndfile misplaces samples at the end of Ogg Vorbis.
    """

    def __init__(self, file: Any, preroll: int = 0, last_seek: int | None = None) -> None:  # soundfile has no types
        self.file = file
        self.rate: int = file.samplerate
        self.channels: int = file.channels
        self.frames: int = file.frames
        self._preroll = preroll
        self._last_seek = last_seek

    def blocks(self, first: int, count: int) -> Iterator[Waveform]:
        """Yield a cut in blocks: memory follows the file's content, not its header."""
        begin = max(0, first - self._preroll)
        if self._last_seek is not None:
            begin = max(0, min(begin, self._last_seek))
        self.file.seek(begin)
        skip(self.file, first - begin)
        yield from mono_blocks(self.file, count)


@cache
def sequential_file() -> Any:
    """Return a `soundfile.SoundFile` that doesn't seek after each read, as soundfile's own does.

    A seek, even to where the decoder is, makes it start anew: without the bit reservoir in MP3, and in Ogg Vorbis at
    another sample near the end of the file.
    """
    import soundfile

    class SequentialFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
        def seekable(self) -> bool:
            return False

    return SequentialFile


def skip(file: Any, count: int) -> None:
    """Decode samples and drop them."""
    for _ in mono_blocks(file, count):
        pass


def mono_blocks(file: Any, count: int) -> Iterator[Waveform]:
    """Yield up to `count` samples from a file's position on, channels averaged, in blocks."""
    while count > 0:
        block: Waveform = file.read(min(count, BLOCK), dtype="float32", always_2d=True)
        if not len(block):
            return
        yield block.mean(axis=1, dtype=np.float32)
        count -= len(block)
