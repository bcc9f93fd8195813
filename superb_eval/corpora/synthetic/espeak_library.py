"""The C interface of the espeak-ng library that the ``espeakng_loader`` package bundles, as far as it is used."""

from __future__ import annotations

import ctypes
import importlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from superb_eval.errors import UserError

SYNCHRONOUS, PHONE_EVENTS, DONT_EXIT, UTF8 = 2, 0x0001, 0x8000, 1
END_OF_LIST, PHONE = 0, 7  # espeak_EVENT_TYPE
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4  # espeak_PARAMETER

_DATA_FILES = ("phontab", "phonindex", "phondata", "intonations", "en_dict", "lang/gmw/en-US")


class EventId(ctypes.Union):
    """``id`` of an event: `string` holds the mnemonic of a phone."""

    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class Event(ctypes.Structure):
    """``espeak_EVENT`` of espeak-ng's speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", EventId),
    ]


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


def loader() -> ModuleType:
    """Return the package that holds the library and its data.

    Raises:
        UserError: it is missing.
    """
    try:
        return importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise UserError(
            "generating the synthetic corpus needs espeak-ng, which is not installed: "
            "run pip install 'superb-eval[synth]'."
        ) from error


def load() -> ctypes.CDLL:
    """Return the library.

    Raises:
        UserError: its package is missing, or it does not load on this system.
    """
    path = loader().get_library_path()
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise UserError(
            f"the espeak-ng library {path} does not load on this system ({error}): "
            "generate the corpus on Linux with glibc, macOS or Windows and copy it here."
        ) from error
    library.espeak_Info.restype = ctypes.c_char_p
    library.espeak_Info.argtypes = [ctypes.c_void_p]
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    synth: list[Any] = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int]
    library.espeak_Synth.argtypes = [*synth, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p]
    return library


def write_data(folder: Path, variants: Mapping[str, str]) -> None:
    """Write espeak-ng's data for English into `folder`, with voice variants of our own (texts by name)."""
    source, data = Path(loader().get_data_path()), folder / "espeak-ng-data"
    for name in _DATA_FILES:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, data / name)
    voices = data / "voices" / "!v"
    voices.mkdir(parents=True)
    for name, text in variants.items():
        (voices / name).write_text(text, encoding="ascii")
