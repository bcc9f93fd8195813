"""Opens an audio file by what it holds: libsndfile for most, by frames, pages or PyAV where that isn't exact."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from superb_eval.data.audio_formats import flac_length, mpeg_frames, ogg_stream, signatures, stated_lengths
from superb_eval.data.audio_formats.mpeg_stream import MpegStream
from superb_eval.data.audio_formats.pyav_stream import PyavStream
from superb_eval.data.audio_formats.stream import AudioStream, SndfileStream, sequential_file
from superb_eval.errors import UserError

READ = "WAV, FLAC, OGG, Opus, MP3, AIFF, AU, CAF, W64, RF64 and SPHERE are read; with PyAV M4A, MP4, AAC and WebM too."

_LEAST_FRAMES = 4
"""Frames of MP3 that a file must hold which libsndfile doesn't recognise."""


@contextmanager
def open_audio(path: Path) -> Iterator[AudioStream]:
    """Open a file; errors of its decoder, here and inside the block, become a `UserError`.

    Raises:
        UserError: there is no such file, it is no audio or damaged, or its header states another length than it holds.
    """
    import soundfile

    if not os.path.isfile(path):  # False too for names that no file system holds
        raise UserError(f"{path}: {_missing(path)} Check the path column of the manifest, and --data.")
    stream: AudioStream | None = None
    with ExitStack() as stack:
        try:
            stream = _open(path, stack)
            yield stream
        # TypeError: soundfile asks for the rate of a file named .raw.
        except (soundfile.SoundFileError, TypeError) as error:
            # `error_string` is the reason without the path, which the message names already.
            reason = getattr(error, "error_string", error)
            advice = f"Is it complete? {READ}" if stream is None else "It is truncated or damaged: copy the file again."
            raise UserError(f"{path}: not readable as audio ({reason}). {advice}") from error
        except OSError as error:
            raise UserError(
                f"{path}: can't be read ({error.strerror or error}). Check its permissions and the disk."
            ) from error


def _missing(path: Path) -> str:
    if os.path.islink(path):
        return f"no such audio file: it is a link to {path.readlink()}, which leads to none."
    return "no such audio file."


def _open(path: Path, stack: ExitStack) -> AudioStream:
    import soundfile

    try:
        file = stack.enter_context(sequential_file()(path))
    except (soundfile.SoundFileError, TypeError):
        stream = _open_other(path, stack)
        if stream is None:
            raise
        return stream
    if file.subtype == "MPEG_LAYER_III":
        index = mpeg_frames.read_index(path)
        return SndfileStream(file) if index is None else MpegStream(path, index)
    if file.format == "OGG":
        return ogg_stream.open_ogg(path, file, stack)
    return SndfileStream(_with_right_length(path, file, stack))


def _with_right_length(path: Path, file: Any, stack: ExitStack) -> Any:
    """Return an opened file, or one with the length that its header lacks."""
    log = file.extra_info
    stated_lengths.check_complete(path, log)
    window = None
    if file.format in ("WAV", "WAVEX"):
        window = stated_lengths.repaired_wav(path, log)
    elif file.format == "FLAC" and file.frames > 2**62:
        window = flac_length.counted_flac(path)
    elif file.format == "NIST":
        stated_lengths.check_sphere(path)
    return file if window is None else stack.enter_context(sequential_file()(stack.enter_context(window)))


def _open_other(path: Path, stack: ExitStack) -> AudioStream | None:
    """Open a file that libsndfile refuses; None where nothing else reads it.

    Raises:
        UserError: it is no audio, or PyAV is needed and not installed, or refuses it too.
    """
    if _is_sphere(path):
        stated_lengths.check_sphere(path)
        return None
    reason = signatures.other_than_audio(path)
    if reason is not None:
        raise UserError(f"{path}: not readable as audio: {reason}")
    data = stated_lengths.find_wav_data(path)
    if data is not None and data.form[:2] in (b"\x01\0", b"\x03\0"):
        window = stack.enter_context(stated_lengths.wav_window(path, data))
        return SndfileStream(stack.enter_context(sequential_file()(window)))
    container = signatures.container(path)
    if container is not None:
        # Truncated ones are named as what they are.
        if container == "ogg":
            ogg_stream.read_links(path)
        elif container == "caf":
            stated_lengths.check_caf(path)
        return PyavStream(path)
    index = mpeg_frames.read_index(path)
    return MpegStream(path, index) if index is not None and len(index.starts) >= _LEAST_FRAMES else None


def _is_sphere(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(7) == b"NIST_1A"
