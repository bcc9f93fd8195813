"""The tasks that the generator knows: a further one is one more module with these names, and one more entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from . import ks
from .espeak import Synthesiser
from .rows import Recording, Row

SIZES = ("nano", "mini")


class Task(Protocol):
    """What a task's module offers."""

    COLUMNS: tuple[str, ...]  # of the manifest, after those that all tasks have

    def plan(self, size: str, seed: int) -> list[Row]:
        """All clips in the order in which they are rendered: a pure function of size and seed."""

    def render(self, row: Row, synthesiser: Synthesiser) -> Recording:
        """Speak and record one clip. Its randomness comes from the row's seed alone."""


TASKS: Mapping[str, Task] = {"ks": ks}
