"""Open the corpus of a task: its official layout where that is there, else a folder of manifests."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from superb_eval import manifest
from superb_eval.errors import UserError
from superb_eval.manifest import SPLITS, Corpus, Manifest
from superb_eval.recipe import CorpusSettings

OFFICIAL: dict[str, str] = {
    "ks": "speech_commands",
}
"""The module of `superb_eval.corpora` that reads a task's official layout: it has `LAYOUT` (in words), `present(root)`
and `load(root, settings)`."""

FOLDERS: dict[str, str] = {}
"""The module of `superb_eval.corpora` that reads a task's manifest folder, where that holds more than utterances
(trials, speaker turns): it has `read(root, settings)`. The other tasks' folders need none."""


def is_official(task: str, root: Path) -> bool:
    """Say whether `root` holds the official corpus of a task, or part of it."""
    return task in OFFICIAL and bool(_module(task).present(root))


def open_corpus(task: str, root: Path, columns: Sequence[str], settings: CorpusSettings) -> Corpus:
    """Return the corpus of a task under `root`; `columns` are the label columns that the task reads.

    Raises:
        UserError: there is no such folder, it holds neither layout, or what it holds is incomplete or wrong.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such corpus folder. Give its place with --data.")
    if is_official(task, root):
        return _with_gain(_module(task).load(root, settings), settings.gain_db)
    if task in OFFICIAL and not (root / task).is_dir():
        raise UserError(_neither(task, root))
    if task in FOLDERS:
        return _with_gain(_import(FOLDERS[task]).read(root, settings), settings.gain_db)
    return _with_gain(manifest.read(root, task, columns), settings.gain_db)


def _neither(task: str, root: Path) -> str:
    manifests = f"{task}/{{{','.join(SPLITS)}}}.csv"
    found = f"{root}: holds neither manifests ({manifests}) nor the official layout ({_module(task).LAYOUT})."
    parent = root.resolve().parent
    return f"{found} Did you mean --data {parent}?" if is_official(task, parent) else found


def _module(task: str) -> Any:
    return _import(OFFICIAL[task])


def _import(name: str) -> Any:
    return importlib.import_module(f"superb_eval.corpora.{name}")


def _with_gain(corpus: Corpus, gain_db: float) -> Corpus:
    return replace(corpus, splits={name: _louder(split, gain_db) for name, split in corpus.splits.items()})


def _louder(split: Manifest, gain_db: float) -> Manifest:
    return replace(split, utterances=tuple(replace(u, clip=replace(u.clip, gain_db=gain_db)) for u in split))
