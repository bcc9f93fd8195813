"""One waveform: read it, cut it, mix it down, resample it, and refuse it clearly if it is no speech."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superb_eval.data import sox_silence
from superb_eval.errors import UserError

SAMPLE_RATE = 16_000
"""Hz. Every upstream here takes 16 kHz mono."""

MIN_SECONDS = 0.05
"""Shorter audio is refused: HuBERT's receptive field is 0.025 s, and s3prl pads below 0.05 s (`nn/upstream.py`)."""

MIN_RATE = 4_000
"""Hz. Nothing speaks below it: a lower rate is a broken header, and resampling it would fill the memory."""

MAX_HOURS = 4.0
"""Longer clips are refused, before they are decoded: a small file of silence may claim more than memory holds."""

MAX_SAMPLES = 2**33
"""A header that claims more (149 h at 16 kHz) is broken, or was written to a pipe by a program that had to guess."""

BLOCK = 2**22
"""Samples decoded at a time."""

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """A stretch of one audio file, as an upstream will hear it.

    `start` and `end` are in seconds (`end` None: to the end of the file). `gain_db` is applied after mixing down and
    resampling; `trim_silence` drops silence last of all (`superb_eval.data.sox_silence`).
    """

    path: Path
    start: float = 0.0
    end: float | None = None
    gain_db: float = 0.0
    trim_silence: bool = False


@dataclass(frozen=True)
class Header:
    """What a file says of a clip before it is decoded: `rate` in Hz, and `samples` of the cut at that rate."""

    rate: int
    channels: int
    samples: int

    @property
    def seconds(self) -> float:
        """Length of the cut."""
        return self.samples / self.rate


def header(clip: Clip) -> Header:
    """Read what the file says of a clip, without decoding it: in about an eighth of the time that `read` takes.

    Raises:
        UserError: as `read` does, save for what only decoding shows (damage inside the file, NaN samples).
    """
    with _opened(clip.path) as file:
        first, last = _cut(clip, file.frames, file.samplerate)
        found = Header(file.samplerate, file.channels, last - first)
    _check_length(clip.path, round(found.seconds * SAMPLE_RATE))
    return found


def read(clip: Clip) -> Waveform:
    """Read a clip as 16 kHz mono float32 in [-1, 1], shape [samples].

    Stereo is mixed down by averaging its channels; other rates are resampled with soxr at very high quality.

    Raises:
        UserError: the file is missing, unreadable, truncated, too short (also once its silence is trimmed), or holds
            NaN or infinite samples.
    """
    mono, rate = _decode(clip)
    if not np.isfinite(mono).all():
        raise UserError(f"{clip.path}: holds NaN or infinite samples. Write the file anew, or drop its row.")
    if rate != SAMPLE_RATE:
        mono = _resample(mono, rate)
    _check_length(clip.path, len(mono))
    gain = np.float32(10.0 ** (clip.gain_db / 20.0))
    samples = np.ascontiguousarray(mono * gain, dtype=np.float32)
    return _trimmed(clip, samples) if clip.trim_silence else samples


def seconds(clip: Clip) -> float:
    """Return how long a clip lasts by its file's header, its silence with it; raises as `header` does."""
    return header(clip).seconds


def trimmed_seconds(clip: Clip) -> float:
    """Return how long a clip lasts as an upstream hears it, 0 where all of it is silence that is trimmed.

    Raises:
        UserError: as `read` does, save for what is too short once trimmed.
    """
    samples = read(replace(clip, trim_silence=False))
    return len(sox_silence.trim(samples) if clip.trim_silence else samples) / SAMPLE_RATE


def digest(clip: Clip) -> str:
    """Return a SHA-256 of the file's bytes and of how the clip is cut and changed: what its features depend on.

    Raises:
        UserError: the file can't be read.
    """
    try:
        state = clip.path.stat()
        content = _hash(clip.path, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino).copy()
    except OSError as error:
        raise UserError(f"{clip.path}: can't be read ({error.strerror}). Check the manifest's path column.") from error
    # As floats: a cut given as 1, 1.0 or numpy's 1.0 is one cut.
    start, end, gain = float(clip.start), None if clip.end is None else float(clip.end), float(clip.gain_db)
    content.update(f"|{start!r}|{end!r}|{gain!r}{'|trimmed' if clip.trim_silence else ''}".encode())
    return content.hexdigest()


def read_again() -> None:
    """Forget the digests of files: `digest` reads each again from now on."""
    _hash.cache_clear()


@lru_cache(maxsize=16)
def _hash(path: Path, *state: int) -> hashlib._Hash:
    """The hash of a file's bytes: clips cut from one long file stand together, and it is read for the first only."""
    del state  # in the key, so that a changed file is read again
    with path.open("rb") as file:
        found = hashlib.sha256()
        while block := file.read(2**22):
            found.update(block)
    return found


def _decode(clip: Clip) -> tuple[Waveform, int]:
    """Return the clip mixed down [samples], and its own rate (Hz)."""
    with _opened(clip.path) as file:
        rate: int = file.samplerate
        first, last = _cut(clip, file.frames, rate)
        file.seek(first)
        blocks = list(_blocks(file, last - first))
    found = sum(map(len, blocks))
    if found < last - first:
        raise UserError(
            f"{clip.path}: truncated: {found} of {last - first} samples could be read. Copy the file again."
        )
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks), rate


def _blocks(file: Any, count: int) -> Iterator[Waveform]:
    """Yield the next `count` samples, mixed down, as far as they are there; what a header claims takes no memory."""
    while count > 0:
        block: Waveform = file.read(min(count, BLOCK), dtype="float32", always_2d=True)
        if not len(block):
            return
        yield block.mean(axis=1, dtype=np.float32)
        count -= len(block)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:  # soundfile has no types
    """Open a file whose header is sane; libsndfile's errors, here and inside the block, become a UserError."""
    import soundfile

    if not path.is_file():
        raise UserError(f"{path}: no such audio file. Check the path column of the manifest, and --data.")
    try:
        with soundfile.SoundFile(path) as file:
            _check_header(path, file)
            yield file
    # TypeError: soundfile asks for the rate of a file named .raw.
    except (soundfile.SoundFileError, TypeError) as error:
        advice = "Is it complete? WAV, FLAC, OGG and MP3 are read."
        # `error_string` is the reason without the path, which stands in front already.
        reason = getattr(error, "error_string", error)
        raise UserError(f"{path}: not readable as audio ({reason}). {advice}") from error


def _check_header(path: Path, file: Any) -> None:
    _check_complete(path, file.extra_info)
    if file.frames == 0:
        raise UserError(f"{path}: holds no samples. Drop its row, or write the file anew.")
    if file.frames > MAX_SAMPLES:
        raise UserError(f"{path}: its header states no credible length ({file.frames} samples). Write the file anew.")
    if file.samplerate < MIN_RATE:
        raise UserError(f"{path}: its rate is {file.samplerate} Hz; at least {MIN_RATE} are needed. Drop its row.")


def _check_complete(path: Path, libsndfile_log: str) -> None:
    """Refuse a WAV or AIFF that promises more bytes than it has: libsndfile reads what is there, silently."""
    promise = re.search(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", libsndfile_log, flags=re.MULTILINE)
    if promise is None:
        return
    promised, found = int(promise[1]), int(promise[2])
    # Programs that write to a pipe can't know the length and leave the largest one (31 or 32 bits, less a header).
    if found < promised < 0x7FFF_F000:
        raise UserError(f"{path}: truncated: {found} of {promised} bytes of audio are there. Copy the file again.")


def _cut(clip: Clip, total: int, rate: int) -> tuple[int, int]:
    """Return the first sample of the cut and the one after its last, in a file of `total` samples at `rate` Hz."""
    length = total / rate
    end = length if clip.end is None else clip.end
    # One hundredth of a second is forgiven: manifests round their times. NaN compares false, so it is refused too.
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
        found = f"{samples} samples ({samples / SAMPLE_RATE:.4f} s at 16 kHz)"
        raise UserError(f"{path}: {found} is too short; at least {MIN_SECONDS} s are needed. Drop its row.")


def _trimmed(clip: Clip, samples: Waveform) -> Waveform:
    kept = sox_silence.trim(samples)
    if len(kept) < MIN_SECONDS * SAMPLE_RATE:
        raise UserError(
            f"{clip.path}: {len(kept) / SAMPLE_RATE:.4f} s are left once silence is trimmed; at least {MIN_SECONDS} s "
            "are needed. Listen to it; drop its row, or give -o corpus.trim_silence=false."
        )
    return kept


def _resample(mono: Waveform, rate: int) -> Waveform:
    import soxr

    return np.asarray(soxr.resample(mono, rate, SAMPLE_RATE, quality="VHQ"), dtype=np.float32)
