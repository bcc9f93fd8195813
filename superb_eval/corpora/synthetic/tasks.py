"""What the generator knows: parts, whose clips are rendered, and tasks, whose files list clips of one or several parts.

A further one is one more module with these names, and one more entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from . import asr, asv, core, er, ic, ks, pr, qbe, sd, sf, sid, unlabelled
from .espeak import Synthesiser
from .rows import Clips, Recording, Row

SIZES = ("nano", "mini")


class Part(Protocol):
    """What the module of a part offers."""

    def plan(self, size: str, seed: int) -> list[Row]:
        """All clips in the order in which they are rendered: a pure function of size and seed."""

    def render(self, row: Row, synthesiser: Synthesiser) -> Recording:
        """Speak and record one clip. Its randomness comes from the row's seed alone."""


class Task(Protocol):
    """What the module of a task offers."""

    PARTS: tuple[str, ...]  # whose clips it lists

    def files(self, clips: Clips) -> Mapping[str, bytes]:
        """The files of the task's folder by name, such as ``train.csv``."""


PARTS: Mapping[str, Part] = {
    "core": core,
    "ks": ks,
    "qbe": qbe,
    "asv": asv,
    "sd": sd,
    "ic": ic,
    "sf": sf,
    "er": er,
    "unlabelled": unlabelled,
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
EXTRA: Mapping[str, Task] = {"unlabelled": unlabelled}  # folders that are no task, made where they are asked for
FOLDERS: Mapping[str, Task] = {**TASKS, **EXTRA}


def parts(folders: tuple[str, ...]) -> tuple[str, ...]:
    """The parts that the given folders list, each once, in the order of `PARTS`."""
    wanted = {part for folder in folders for part in FOLDERS[folder].PARTS}
    return tuple(part for part in PARTS if part in wanted)
