"""The registry of the synthetic corpus: parts, whose clips are rendered, and tasks, whose manifests list those clips.

To add one, write a module with the functions of `Part` or `Task`, and add an entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from superb_eval.corpora.synthetic import (
    aligned,
    asr,
    asv,
    er,
    ic,
    ks,
    pr,
    qbe,
    sd,
    sf,
    shared_sentences,
    sid,
    unlabelled,
)
from superb_eval.corpora.synthetic.clips import ClipPlan, ClipsByPart, RenderedClip
from superb_eval.corpora.synthetic.espeak import Synthesiser

SIZES = ("nano", "mini")


class Part(Protocol):
    """The interface of a part's module."""

    def plan_clips(self, size: str, seed: int) -> list[ClipPlan]:
        """Return all clips in the order in which they are rendered: a pure function of size and seed."""

    def render_clip(self, plan: ClipPlan, synthesiser: Synthesiser) -> RenderedClip:
        """Synthesise and augment one clip. Its randomness comes from the plan's seed alone."""


class Task(Protocol):
    """The interface of a task's module."""

    PARTS: tuple[str, ...]  # whose clips its manifests list

    def task_files(self, clips: ClipsByPart) -> Mapping[str, bytes]:
        """Return the files of the task's folder by name, such as ``train.csv``."""


PARTS: Mapping[str, Part] = {
    "core": shared_sentences,
    "ks": ks,
    "qbe": qbe,
    "asv": asv,
    "sd": sd,
    "ic": ic,
    "sf": sf,
    "er": er,
    "unlabelled": unlabelled,
    "aligned": aligned,
}
TASKS: Mapping[str, Task] = {
    "pr": pr,
    "asr": asr,
    "ks": ks,
    "qbe": qbe,
    "sid": sid,
    "asv": asv,
    "sd": sd,
    "ic": ic,
    "sf": sf,
    "er": er,
}
EXTRA: Mapping[str, Task] = {"unlabelled": unlabelled, "aligned": aligned}
"""Folders that belong to no SUPERB task; generated only where `tasks` names them."""

FOLDERS: Mapping[str, Task] = {**TASKS, **EXTRA}


def parts_of(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Return the parts whose clips these folders list, each once, in the order of `PARTS`."""
    needed = {part for folder in folders for part in FOLDERS[folder].PARTS}
    return tuple(part for part in PARTS if part in needed)
