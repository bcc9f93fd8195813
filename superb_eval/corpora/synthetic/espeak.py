"""Speech and phone events from the espeak-ng library that the ``espeakng_loader`` package bundles.

espeak-ng is licensed GPL-3-or-later. Nothing of it is copied into this package: the library is loaded at run time,
in the processes that generate the corpus, and only where the user has installed it.

Three properties of espeak-ng 1.52 shape this module. It is not thread-safe. It accepts an unknown variant without
an error. And its output depends on what it synthesised before, so an utterance is repeatable only within the same
sequence of calls in a fresh process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from superb_eval.corpora.synthetic import augment
from superb_eval.corpora.synthetic import espeak_library as c
from superb_eval.corpora.synthetic.augment import Wave
from superb_eval.corpora.synthetic.voices import Voice
from superb_eval.runtime import atomic_files

SAMPLE_RATE = 22_050
MAX_VOICES = 150  # espeak-ng refuses to list more than 350 voice files in one data folder
LANGUAGE = "en-us"


@dataclass(frozen=True)
class Delivery:
    """How an utterance is spoken: `rate` in words a minute, `pitch` and `range` from 0 to 100 (50: the voice's own)."""

    rate: int = 170
    pitch: int = 50
    range: int = 50


@dataclass(frozen=True)
class Phone:
    """One phone in espeak-ng's mnemonics (with stress marks), from sample `start` up to, not including, `end`."""

    label: str
    start: int
    end: int


@dataclass(frozen=True)
class Speech:
    """One utterance: int16 `audio` [samples] at 22 050 Hz, and its phones in order, without gaps up to its end."""

    audio: NDArray[np.int16]
    phones: tuple[Phone, ...]

    def at_16k(self) -> Wave:
        """Return the audio [samples] in [-1, 1], resampled to 16 kHz."""
        return np.asarray(soxr.resample(self.audio / 32_768, SAMPLE_RATE, augment.SAMPLE_RATE), np.float64)


def drop_empty_phones(phones: Iterable[Phone]) -> tuple[Phone, ...]:
    """Drop zero-length phones: they mark a sound that espeak-ng merged into its neighbour."""
    return tuple(phone for phone in phones if phone.end > phone.start)


def version() -> str:
    """Return the version of the bundled espeak-ng, such as ``1.52.0``.

    Raises:
        UserError: the ``espeakng_loader`` package is missing.
    """
    return str(c.load().espeak_Info(None).decode())


class Synthesiser:
    """Synthesises speech with these voices; a context manager, because it owns a temporary voice folder.

    Only one may be open in a process at a time, in one thread.

    Args:
        voices: At most 150, with distinct names.

    Raises:
        UserError: The ``espeakng_loader`` package is missing or does not load here, or the disk is full.
        ValueError: Too many voices, or two of one name.
    """

    def __init__(self, voices: Sequence[Voice]) -> None:
        if len(voices) > MAX_VOICES or len({voice.name for voice in voices}) < len(voices):
            raise ValueError(f"{len(voices)} voices: expected at most {MAX_VOICES}, all of different names")
        self._names = {voice.name for voice in voices}
        self._library = c.load()
        self._folder = tempfile.TemporaryDirectory(prefix="superb-eval-voices-")
        with atomic_files.explain_disk_errors(Path(self._folder.name)):
            c.write_data(Path(self._folder.name), {voice.name: voice.variant() for voice in voices})
        self._audio: list[NDArray[np.int16]] = []
        self._events: list[tuple[str, int]] = []
        self._callback = c.Callback(self._collect)  # an attribute, because ctypes holds no reference
        self._open()

    def _open(self) -> None:
        folder = self._folder.name.encode()
        rate = self._library.espeak_Initialize(c.SYNCHRONOUS, 0, folder, c.PHONE_EVENTS | c.DONT_EXIT)
        if rate != SAMPLE_RATE:
            raise RuntimeError(f"espeak-ng returned {rate} on start-up, expected a sample rate of {SAMPLE_RATE} Hz")
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> Synthesiser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.espeak_Terminate()
        self._folder.cleanup()

    def speak(
        self, text: str, voice: Voice, delivery: Delivery = Delivery(), seed: int = 0, merge: bool = True
    ) -> Speech:
        """Synthesise `text`; with `merge`, zero-length phones are dropped. `seed` (31 bits) is that of its own noise.

        Raises:
            ValueError: the voice is not one of the synthesiser's.
            RuntimeError: espeak-ng refused the text, the voice or a parameter.
        """
        if voice.name not in self._names:
            raise ValueError(f"voice {voice.name!r} is not one of this synthesiser's")
        self._audio.clear()
        self._events.clear()
        self._set(voice, delivery, seed)
        data = text.encode()
        self._check(self._library.espeak_Synth(data, len(data) + 1, 0, 0, 0, c.UTF8, None, None), text)
        self._check(self._library.espeak_Synchronize(), text)
        audio = np.concatenate([np.zeros(0, np.int16), *self._audio])
        phones = _phones(self._events, len(audio))
        return Speech(audio, drop_empty_phones(phones) if merge else phones)

    def _set(self, voice: Voice, delivery: Delivery, seed: int) -> None:
        name = f"{LANGUAGE}+{voice.name}"
        self._check(self._library.espeak_SetVoiceByName(name.encode()), name)
        # At the default volume of 100 several voices clip.
        values = {c.RATE: delivery.rate, c.VOLUME: 60, c.PITCH: delivery.pitch, c.RANGE: delivery.range}
        for parameter, value in values.items():
            self._check(self._library.espeak_SetParameter(parameter, value, 0), f"parameter {parameter} = {value}")
        self._library.espeak_ng_SetRandSeed(seed)

    @staticmethod
    def _check(status: int, argument: str) -> None:
        if status != 0:
            raise RuntimeError(f"espeak-ng refused {argument!r} with status {status}")

    def _collect(self, wave: Any, count: int, events: Any) -> int:
        if wave and count:
            self._audio.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != c.END_OF_LIST:
            if events[index].type == c.PHONE:
                self._events.append((events[index].id.string.decode(errors="replace"), events[index].sample))
            index += 1
        return 0


def _phones(events: Sequence[tuple[str, int]], samples: int) -> tuple[Phone, ...]:
    """Return phones from their start samples: each ends where the next one starts, the last one with the audio."""
    starts = [min(start, samples) for _, start in events]
    ends = [*starts[1:], samples]
    return tuple(Phone(label, start, end) for (label, _), start, end in zip(events, starts, ends, strict=True))
