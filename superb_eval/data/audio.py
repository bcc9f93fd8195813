"""Reading audio: decode, cut, mix down and resample one clip; refuse files that are damaged, too short or too long."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from superb_eval.data import sox_silence
from superb_eval.data.audio_formats import stream
from superb_eval.data.audio_formats.open_audio import open_audio
from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

SAMPLE_RATE = 16_000
"""Hz. Every upstream reads 16 kHz mono."""

MIN_SECONDS = 0.05
"""Shorter audio is refused: HuBERT's receptive field is 0.025 s, and s3prl pads below 0.05 s (`nn/upstream.py`)."""

MIN_RATE = 4_000
"""Hz. No speech is recorded below it: a lower rate is a broken header, and resampling it would fill the memory."""

MAX_HOURS = 4.0
"""Longer clips are refused, before they are decoded: a small file of silence may decode to more than memory holds."""

MAX_SAMPLES = 2**33
"""A header that states more (149 h at 16 kHz) is broken, or was written to a pipe, where the length is unknown."""

LOSSY = (b"OggS", b"ID3")
"""How Ogg and tagged MP3 begin (a bare MP3 with the eleven bits of a frame). Once they were read by the length that
libsndfile estimates, so that what was stored of them before belongs to other audio."""

Waveform = stream.Waveform


@dataclass(frozen=True)
class Clip:
    """A segment of one audio file, as an upstream reads it.

    `start` and `end` are in seconds (`end` None: to the end of the file). `gain_db` is applied after mixing down and
    resampling; `trim_silence` removes silence last (`superb_eval.data.sox_silence`).
    """

    path: Path
    start: float = 0.0
    end: float | None = None
    gain_db: float = 0.0
    trim_silence: bool = False


@dataclass(frozen=True)
class Header:
    """A file's header, applied to a clip: `rate` in Hz, and the clip's `samples` at that rate."""

    rate: int
    channels: int
    samples: int

    @property
    def seconds(self) -> float:
        """Duration of the clip in seconds."""
        return self.samples / self.rate


def header(clip: Clip) -> Header:
    """Read the header of a clip's file without decoding: in about an eighth of the time that `read` takes.

    MP3 and Ogg are counted by frames and pages; what PyAV reads (M4A, WebM) is decoded. The samples are those that
    `read` returns, before they are resampled.

    Raises:
        UserError: as `read` does, except for what only decoding reveals (damage inside the file, NaN samples).
    """
    with _open(clip.path) as file:
        first, last = _cut(clip, file.frames, file.rate)
        result = Header(file.rate, file.channels, last - first)
    _check_length(clip.path, round(result.seconds * SAMPLE_RATE))
    return result


def read(clip: Clip) -> Waveform:
    """Read a clip as 16 kHz mono float32, shape [samples].

    Samples are in [-1, 1]; values beyond, which files of floats and lossy ones may hold, are kept. Stereo is mixed down
    by averaging its channels; other rates are resampled with soxr at very high quality.

    Raises:
        UserError: the file is missing, unreadable, truncated, too short (also after its silence is trimmed), or holds
            NaN or infinite samples.
    """
    mono, rate = _decode(clip)
    if not np.isfinite(mono).all():
        raise UserError(f"{clip.path}: holds NaN or infinite samples. Write the file again, or drop its row.")
    if rate != SAMPLE_RATE:
        mono = _resample(mono, rate)
    _check_length(clip.path, len(mono))
    gain = np.float32(10.0 ** (clip.gain_db / 20.0))
    samples = np.ascontiguousarray(mono * gain, dtype=np.float32)
    return _trimmed(clip, samples) if clip.trim_silence else samples


def seconds(clip: Clip) -> float:
    """Return a clip's duration in seconds by its file's header, silence included.

    Raises:
        UserError: as `header` does.
    """
    return header(clip).seconds


def seconds_after_trimming(clip: Clip) -> float:
    """Return a clip's duration in seconds after its silence is trimmed (0 where all is silent).

    Raises:
        UserError: as `read` does, except where a clip is too short after trimming.
    """
    samples = read(replace(clip, trim_silence=False))
    return len(sox_silence.trim(samples) if clip.trim_silence else samples) / SAMPLE_RATE


def digest(clip: Clip) -> str:
    """Return a SHA-256 of the file's bytes and of the clip's cut, gain and trimming: all that its features depend on.

    Raises:
        UserError: the file can't be read.
    """
    try:
        state = clip.path.stat()
        content = _hash(clip.path, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino).copy()
    except OSError as error:
        raise UserError(f"{clip.path}: can't be read ({error.strerror}). Check the manifest's path column.") from error
    # As floats: 1, 1.0 and numpy's 1.0 are the same time.
    start, end, gain = float(clip.start), None if clip.end is None else float(clip.end), float(clip.gain_db)
    content.update(f"|{start!r}|{end!r}|{gain!r}{'|trimmed' if clip.trim_silence else ''}".encode())
    return content.hexdigest()


def forget_digests() -> None:
    """Clear the cache of file digests, so that `digest` reads each file again."""
    _hash.cache_clear()


@lru_cache(maxsize=2**16)
def _hash(path: Path, *state: int) -> hashlib._Hash:
    """Return the hash of a file's bytes, cached: a long file is read once, in whatever order its clips come."""
    del state  # part of the cache's key, so that a changed file is read again
    with outside_files.open_regular(path) as file:
        file_hash = hashlib.sha256()
        head = file.read(4)
        file_hash.update(head)
        while block := file.read(2**22):
            file_hash.update(block)
    if head.startswith(LOSSY) or (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
        file_hash.update(b"|by frames")
    return file_hash


def _decode(clip: Clip) -> tuple[Waveform, int]:
    """Return the clip mixed down [samples], and the sampling rate of its file (Hz)."""
    with _open(clip.path) as file:
        first, last = _cut(clip, file.frames, file.rate)
        blocks = list(file.blocks(first, last - first))
    count = sum(map(len, blocks))
    if count < last - first:
        raise UserError(
            f"{clip.path}: truncated: {count} of {last - first} samples could be read. Copy the file again."
        )
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks), file.rate


@contextmanager
def _open(path: Path) -> Iterator[stream.AudioStream]:
    """Open a file and check its header."""
    with open_audio(path) as file:
        if file.frames == 0:
            raise UserError(f"{path}: holds no samples. Drop its row, or write the file again.")
        if file.frames > MAX_SAMPLES:
            raise UserError(
                f"{path}: its header states no credible length ({file.frames} samples). Write the file again."
            )
        if file.rate < MIN_RATE:
            raise UserError(f"{path}: its rate is {file.rate} Hz; at least {MIN_RATE} are needed. Drop its row.")
        yield file


def _cut(clip: Clip, total: int, rate: int) -> tuple[int, int]:
    """Return the first sample of a clip and the one after its last, in a file of `total` samples at `rate` Hz."""
    length = total / rate
    end = length if clip.end is None else clip.end
    # 0.01 s is tolerated: manifests round their times. NaN compares false, so it is refused too.
    if not (0 <= clip.start < min(end, length) and end <= length + 0.01):
        cut = f"{clip.start} to {'the end' if clip.end is None else f'{clip.end} s'}"
        raise UserError(f"{clip.path}: the cut {cut} lies outside the file, which lasts {length:.3f} s.")
    if min(end, length) - clip.start > MAX_HOURS * 3600:
        hours = (min(end, length) - clip.start) / 3600
        raise UserError(
            f"{clip.path}: lasts {hours:.1f} h; cut it into rows of at most {MAX_HOURS:g} h by start and end."
        )
    return round(clip.start * rate), min(round(end * rate), total)


def _check_length(path: Path, samples: int) -> None:
    """Refuse fewer than `MIN_SECONDS`; `samples` are at 16 kHz."""
    if samples < MIN_SECONDS * SAMPLE_RATE:
        length = f"{samples} samples ({samples / SAMPLE_RATE:.4f} s at 16 kHz)"
        raise UserError(f"{path}: {length} is too short; at least {MIN_SECONDS} s are needed. Drop its row.")


def _trimmed(clip: Clip, samples: Waveform) -> Waveform:
    trimmed = sox_silence.trim(samples)
    if len(trimmed) < MIN_SECONDS * SAMPLE_RATE:
        raise UserError(
            f"{clip.path}: {len(trimmed) / SAMPLE_RATE:.4f} s are left after silence is trimmed; at least "
            f"{MIN_SECONDS} s are needed. Check the recording; drop its row, or give -o corpus.trim_silence=false."
        )
    return trimmed


def _resample(mono: Waveform, rate: int) -> Waveform:
    import soxr

    return np.asarray(soxr.resample(mono, rate, SAMPLE_RATE, quality="VHQ"), dtype=np.float32)
