"""Recognise and read the data folders of other toolkits."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from superb_eval.data import table_io
from superb_eval.data.importers.source import SourceCorpus
from superb_eval.errors import UserError, near_miss

READERS = ("kaldi", "audiofolder", "hugging_face", "lhotse", "class_folders")
"""The modules that read a format, each with `KIND`, `split_names(root)` and `read(root, names, turns)`."""

EXPECTED = (
    "data folders of Kaldi or ESPnet (wav.scp), a data set of Hugging Face (save_to_disk, Parquet or audiofolder), "
    "manifests of Lhotse, or a folder of class folders of audio"
)


def recognise(root: Path) -> str | None:
    """Return the kind of data folder that `root` is, as messages name it; None where it is none that is read."""
    found = _reader(root)
    return None if found is None else str(found[0].KIND)


def split_names(root: Path) -> list[str]:
    """Return the names of the splits of a data folder, before anything in them is read; [""] where it is undivided.

    Raises:
        UserError: `root` is no data folder that is read.
    """
    return _known_reader(root)[1]


def read(root: Path, only: Sequence[str] = (), turns: bool = False) -> SourceCorpus:
    """Read a data folder: all of its splits, or the ones named in `only`.

    With `turns`, rows are whole recordings with their speaker turns, where the format states turns.

    Raises:
        UserError: `root` is no data folder that is read, it has no such split, or what it holds is wrong; bad rows are
            named all at once.
    """
    reader, names = _known_reader(root)
    for name in only:
        if name not in names:
            present = ", ".join(names) if names != [""] else "none, it is undivided"
            raise UserError(f"{root}: has no split '{name}' (found: {present}).{near_miss(name, names)}")
    with table_io.paused_garbage_collection():
        source: SourceCorpus = reader.read(root, only or names, turns)
    empty = [name or str(root) for name, rows in source.splits.items() if not rows]
    if empty:
        raise UserError(f"{root}: {', '.join(empty)} has no utterance ({source.kind}). Check that it is complete.")
    return source


def _known_reader(root: Path) -> tuple[Any, list[str]]:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Give an existing one.")
    found = _reader(root)
    if found is None:
        raise UserError(f"{root}: is none of these: {EXPECTED}.")
    return found


def _reader(root: Path) -> tuple[Any, list[str]] | None:
    """Return the module that reads a folder, and the folder's splits."""
    for name in READERS if root.is_dir() else ():
        module = importlib.import_module(f"superb_eval.data.importers.{name}")
        names: list[str] = module.split_names(root)
        if names:
            return module, names
    return None
