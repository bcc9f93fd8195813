"""Reads what libsndfile doesn't, by ffmpeg's libraries: M4A, MP4, AAC, WebM and others (extra `codecs`: PyAV).

A file is decoded once, from its beginning: seeks in AAC and the like give neither the same samples nor, in some
containers, their position. The last files decoded are kept, in memory or, above 64 MiB, in a temporary file.
"""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from superb_eval.data.audio_formats import signatures
from superb_eval.data.audio_formats.stream import BLOCK, Waveform
from superb_eval.errors import UserError

INSTALL = 'pip install "superb-eval[codecs]"'

KEPT = 4
"""Decoded files that are kept."""

IN_MEMORY = 2**26
"""Bytes of a decoded file that are kept in memory."""

TOLERATED = 0.25
"""Seconds by which the audio may be shorter than the container states: they round, and leave out the last frame."""

_SCALES = {"u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31}

Key = tuple[Path, int, int, int, int]


@dataclass
class DecodedFile:
    """A file's samples [frames], channels averaged, at its own `rate` (Hz)."""

    rate: int
    channels: int
    frames: int
    samples: IO[bytes]
    lock: threading.Lock = field(default_factory=threading.Lock)


class PyavStream:
    """An audio file that PyAV decodes."""

    def __init__(self, path: Path) -> None:
        self._path, self._key = path, _key(path)
        self.rate, self.channels, self.frames = _shape(self._key)

    def blocks(self, first: int, count: int) -> Iterator[Waveform]:
        """Yield a cut in blocks."""
        decoded = _RECENT.get(self._key)
        end = min(first + count, decoded.frames)
        while first < end:
            with decoded.lock:
                decoded.samples.seek(4 * first)
                block = np.frombuffer(decoded.samples.read(4 * min(BLOCK, end - first)), dtype=np.float32)
            yield block
            first += len(block)


class RecentFiles:
    """The last files decoded; several threads that want one file decode it once."""

    def __init__(self) -> None:
        self._files: OrderedDict[Key, Future[DecodedFile]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> DecodedFile:
        """Return a decoded file.

        Raises:
            UserError: it can't be decoded.
        """
        with self._lock:
            future = self._files.pop(key, None)
            is_new = future is None
            if future is None:
                future = Future()
            self._files[key] = future
            while len(self._files) > KEPT:
                self._files.popitem(last=False)
        if is_new:
            try:
                future.set_result(_decode(key[0]))
            except BaseException as error:  # the others that wait get it too
                future.set_exception(error)
                with self._lock:
                    if self._files.get(key) is future:
                        del self._files[key]
        return future.result()


_RECENT = RecentFiles()


def _key(path: Path) -> Key:
    state = path.stat()
    return path, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


@lru_cache(maxsize=2**16)
def _shape(key: Key) -> tuple[int, int, int]:
    """Return a file's rate (Hz), channels and samples, cached beyond its samples."""
    decoded = _RECENT.get(key)
    return decoded.rate, decoded.channels, decoded.frames


def _decode(path: Path) -> DecodedFile:
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"{path}: libsndfile doesn't read this format; PyAV does: {INSTALL}. Or convert it to FLAC."
        ) from error
    try:
        # A named format and one protocol: ffmpeg opens nothing else, whatever the file refers to.
        options = {"protocol_whitelist": "file"}
        with av.open(
            f"file:{path.resolve()}", format=signatures.container(path), options=options, **_tags_in_any_encoding(av)
        ) as media:
            if not media.streams.audio:
                raise UserError(f"{path}: has no sound track. Drop its row.")
            return _decode_track(path, media, media.streams.audio[0])
    except av.error.FFmpegError as error:
        raise UserError(f"{path}: not readable as audio ({error.strerror}). Is it complete? Copy it again.") from error


def _tags_in_any_encoding(av: Any) -> dict[str, Any]:
    """Return the option of `av.open` that admits tags which are no UTF-8; from PyAV 19 on there is none, nor a need."""
    return {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


def _decode_track(path: Path, media: Any, track: Any) -> DecodedFile:
    samples = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - lives as long as the result
    rate = channels = frames = longest = 0
    for frame in media.decode(track):
        if rate and frame.sample_rate != rate:
            raise UserError(f"{path}: its rate changes from {rate} to {frame.sample_rate} Hz. Convert it to FLAC.")
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        samples.write(_mono(frame).tobytes())
        frames += frame.samples
        longest = max(longest, frame.samples)
    stated = _stated_frames(media, track, rate)
    if frames < stated - TOLERATED * rate:
        raise UserError(f"{path}: truncated: {frames} of {stated} samples are there. Copy the file again.")
    # A last frame is padded to its full length; an edit list states where the audio ends.
    is_padded = stated and track.duration and frames - stated < 3 * longest
    return DecodedFile(rate, channels, min(frames, stated) if is_padded else frames, samples)


def _stated_frames(media: Any, track: Any, rate: int) -> int:
    """Return the samples that track or container state; 0 where neither does, as in AAC without a container."""
    if media.format.name == "aac":  # estimated by its size
        return 0
    if track.duration:
        return int(track.duration * track.time_base * rate)
    return round(media.duration * rate / 1_000_000) if media.duration else 0


def _mono(frame: Any) -> Waveform:
    content = frame.to_ndarray()
    if not frame.format.is_planar:
        content = content.reshape(-1, frame.layout.nb_channels).T
    scale = _SCALES.get(content.dtype.str[1:])
    if scale is not None:
        offset = scale if content.dtype.kind == "u" else 0.0
        content = (content.astype(np.float64) - offset) / scale
    return np.asarray(content.mean(axis=0), dtype=np.float32)
